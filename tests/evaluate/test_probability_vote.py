"""The answer of the highest mean probability, and what is said of answers that a file does not list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.errors import DataError
from kovqa_core.evaluate.ensemble import vote_on_files
from kovqa_core.evaluate.predictions_file import read_predictions
from kovqa_core.evaluate.probability_vote import vote_by_probability


def test_the_highest_mean_wins_and_not_the_most_files() -> None:
    sure, unsure = (("빨강", 0.9), ("파랑", 0.1)), (("파랑", 0.4), ("빨강", 0.35))
    vote = vote_by_probability([unsure, unsure, sure])
    assert vote.answer.text == "빨강"
    assert vote.answer.score == pytest.approx((0.35 * 2 + 0.9) / 3)
    assert [text for text, _ in vote.answer.likeliest] == ["빨강", "파랑"]
    assert not vote.is_undecided


def test_answers_of_one_normal_form_are_one() -> None:
    vote = vote_by_probability(
        [(("Red ", 0.5), ("파랑", 0.45)), (("red", 0.5), ("RED", 0.3), ("파랑", 0.45))]
    )
    assert vote.answer.likeliest == (("Red ", 0.5), ("파랑", 0.45))


def test_what_is_not_listed_counts_as_nothing_and_is_told() -> None:
    """Of an answer that a file lacks it is known that it is no likelier there than the last that it lists."""
    vote = vote_by_probability([(("가", 0.6), ("나", 0.3)), (("다", 0.9), ("라", 0.2))])
    assert (vote.answer.text, vote.answer.score) == ("다", 0.45)
    assert not vote.is_undecided, "다 has 0.45 at least, 가 (0.6 + 0.2) / 2 = 0.4 at most"
    vote = vote_by_probability([(("가", 0.6), ("나", 0.5)), (("다", 0.7), ("라", 0.6))])
    assert vote.answer.text == "다"
    assert vote.is_undecided, "가 may have (0.6 + 0.6) / 2"
    vote = vote_by_probability([(("가", 0.5),), (("나", 0.5),)])
    assert vote.answer.text == "가"
    assert vote.is_undecided, "what nobody lists may have 0.5 everywhere"


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), "utf-8")
    return path


def test_files_are_voted_on_by_probability(tmp_path: Path) -> None:
    first = write(
        tmp_path / "a.jsonl",
        [{"id": "1", "answer": "파랑", "score": 0.4, "likeliest": [["파랑", 0.4], ["빨강", 0.3]], "메모": 7}],
    )
    second = write(
        tmp_path / "b.jsonl",
        [{"id": "1", "answer": "빨강", "score": 0.9, "likeliest": [["빨강", 0.9], ["파랑", 0.05]]}],
    )
    result = vote_on_files([first, first, second], tmp_path / "c.jsonl", by_probability=True)
    assert (result.rows, result.undecided) == (1, 0)
    (line,) = (tmp_path / "c.jsonl").read_text("utf-8").splitlines()
    likeliest = [["빨강", 0.5], ["파랑", 0.283333]]
    assert json.loads(line) == {"id": "1", "answer": "빨강", "score": 0.5, "likeliest": likeliest, "메모": 7}
    vote_on_files([first, first, second], tmp_path / "most.jsonl")
    assert read_predictions(tmp_path / "most.jsonl").texts == {"1": "파랑"}
    assert not read_predictions(tmp_path / "most.jsonl").likeliest, "those of one file are not the vote's"


@pytest.mark.parametrize("column", [None, "메모", [["빨강"]], [["빨강", 1.5]], [], '[["빨강", "0.5"]]'])
def test_a_file_that_does_not_list_them_is_named(tmp_path: Path, column: object) -> None:
    listed = write(tmp_path / "a.jsonl", [{"id": "1", "answer": "예", "likeliest": [["예", 0.5]]}])
    other = write(tmp_path / "b.jsonl", [{"id": "1", "answer": "예", "likeliest": column}])
    assert read_predictions(other).texts == {"1": "예"}, "a column of that name may be anybody's"
    with pytest.raises(
        DataError, match=r"b\.jsonl: the likeliest answers are missing for 1 id: 1\n.*--top-k"
    ):
        vote_on_files([listed, other], tmp_path / "c.jsonl", by_probability=True)
