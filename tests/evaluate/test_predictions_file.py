"""Predictions of other programs: columns in any case, odd answers and scores; and votes on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.errors import DataError
from kovqa_core.evaluate.ensemble import vote_on_files
from kovqa_core.evaluate.predictions_file import read_predictions


def write(folder: Path, content: str | bytes, name: str = "p.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.jsonl", '{"id": 1, "answer": ["예"]}\n'),  # a list of one text is that text
        ("p.jsonl", '{"question_id": "1", "text": "예"}\n'),
        ("p.jsonl", '\ufeff{"ID": 1, "Answer": "예"}\n'),
        ("p.json", '[{"QID": 1, "answers": ["예"]}]'),
        ("submission.csv", "\ufeffID,answer\r\n1,예\r\n"),  # Dacon's own
        ("p.csv", " Id ,ANSWER,score\n1,예,\n"),
        ("p.tsv", "Question_ID\tanswer\n1\t예\n"),
    ],
)
def test_predictions_as_other_programs_write_them(tmp_path: Path, name: str, content: str) -> None:
    found = read_predictions(write(tmp_path, content, name))
    assert (found.task, found.texts, found.confidence) == ("vqa", {"1": "예"}, {})


def test_a_challenges_captions_are_predictions(tmp_path: Path) -> None:
    found = read_predictions(write(tmp_path, '[{"image_id": 42, "caption": "a cat"}]', "captions.json"))
    assert (found.task, found.texts) == ("caption", {"42": "a cat"})


def test_our_own_column_comes_before_another_spelling(tmp_path: Path) -> None:
    line = '{"ID": "theirs", "id": "ours", "Answer": "X", "answers": ["Y"], "answer": "Z"}\n'
    assert read_predictions(write(tmp_path, line)).texts == {"ours": "Z"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": 1, "answer": ["a", "b"]}', "'answer' is a list, not one text"),
        ('{"id": 1, "answer": []}', "'answer' is a list, not one text"),
        ('{"id": 1, "answer": [["a"]]}', "'answer' is a list, not one text"),
        ('{"id": 1, "answer": {"a": 1.0}}', "'answer' is a JSON object, not one text"),
        ('{"id": 1, "answer": NaN}', "'answer' is nan"),
        ('{"id": 1, "answer": -Infinity}', "'answer' is -inf"),
        ('{"id": NaN, "answer": "a"}', "'id' is nan"),
        ('{"id": [1, 2], "answer": "a"}', "'id' is a list"),
        ('{"answer": "a"}', "no 'id'"),
        ('{"id": 1, "caption": "a"}', "no 'answer'"),
        ('{"id": 1, "answer": "a", "score": "high"}', "'score' is \"high\", not a number"),
        ('{"id": 1, "answer": "a", "score": [0.5]}', "'score' is [0.5], not a number"),
        ('{"id": 1, "answer": "a", "score": true}', "'score' is true, not a number"),
    ],
)
def test_what_is_no_prediction_is_named_with_its_line(tmp_path: Path, line: str, says: str) -> None:
    path = write(tmp_path, f'{{"id": "0", "answer": "a"}}\n{line}\n')
    with pytest.raises(DataError) as caught:
        read_predictions(path)
    assert f"{path}:2: not a prediction ({says}" in caught.value.message


SCORES = [
    "0.5",
    "0",
    "1",
    '""',
    '" "',
    "null",
    "NaN",
    '"nan"',
    "Infinity",
    "-1",
    "2",
    '"1e400"',
    "1" + "0" * 400,
]


def test_scores_that_are_no_confidence_are_counted(tmp_path: Path) -> None:
    """Empty ones say nothing; NaN, infinite ones and those beyond 0…1 count as missing, and are named."""
    lines = [f'{{"id": {n}, "answer": "a", "score": {score}}}' for n, score in enumerate(SCORES)]
    found = read_predictions(write(tmp_path, "\n".join(lines)))
    assert found.confidence == {"0": 0.5, "1": 0.0, "2": 1.0}
    assert found.unusable_scores == tuple(str(n) for n in range(6, len(SCORES)))


def test_a_csv_without_scores_in_some_rows(tmp_path: Path) -> None:
    found = read_predictions(write(tmp_path, "id,answer,score\na,예,0.25\nb,예,\nc,예,nan\n", "p.csv"))
    assert (found.confidence, found.unusable_scores) == ({"a": 0.25}, ("c",))


@pytest.mark.parametrize("score", ["Infinity", "NaN", "-3"])
def test_a_vote_does_not_count_what_is_no_confidence(tmp_path: Path, score: str) -> None:
    """An infinite score would win every tie; NaN would let the order of the files decide."""
    good = write(tmp_path, '{"id": 1, "answer": "둘", "score": 0.9, "note": NaN}\n', "good.jsonl")
    odd = write(tmp_path, f'{{"id": "1", "answer": "셋", "score": {score}}}\n', "odd.jsonl")
    result = vote_on_files([good, odd], tmp_path / "v.jsonl")
    assert (result.rows, result.unscored, result.unusable_scores) == (1, (odd,), {odd: ("1",)})
    voted = json.loads((tmp_path / "v.jsonl").read_text("utf-8"))
    assert voted == {"id": "1", "answer": "둘", "score": 0.5, "note": None}
    plain = write(tmp_path, '{"id": "1", "answer": "셋"}\n', "plain.jsonl")
    assert vote_on_files([plain, plain], tmp_path / "w.jsonl").unscored == ()


def test_an_empty_answer_has_no_vote(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, f'{{"ID": "a", "answer": "{first}"}}\n{{"ID": "b", "answer": ""}}\n', f"{n}.jsonl")
        for n, first in enumerate(("", "개", " "))
    ]
    vote_on_files(paths, tmp_path / "v.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text("utf-8").splitlines()]
    assert [(row["id"], row["answer"]) for row in rows] == [("a", "개"), ("b", "")]
