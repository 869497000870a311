"""Ids that repeat under several images, in a sample or in predictions: joined by the image, or named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.errors import DataError
from kovqa_core.submit.submission import write_submission


def write_predictions(folder: Path, *rows: dict[str, str]) -> Path:
    (folder / "p.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return folder / "p.jsonl"


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": "a.jpg#1", "answer": "개"}, {"id": "b.jpg#1", "answer": "밥"}, {"id": "2", "answer": "둘"}],
        [
            {"id": "1", "image": "images/b.jpg", "answer": "밥"},
            {"id": "2", "image": "images/a.jpg", "answer": "둘"},
            {"id": "1", "image": "images/a.jpg", "answer": "개"},
        ],
    ],
)
def test_a_sample_with_images_is_joined_by_them(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    (tmp_path / "s.csv").write_text("id,image,answer\n1,a.jpg,\n1,b.jpg,\n2,a.jpg,\n")
    write_submission("csv", write_predictions(tmp_path, *rows), tmp_path / "s.csv", tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text("utf-8") == "id,image,answer\n1,a.jpg,개\n1,b.jpg,밥\n2,a.jpg,둘\n"


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("id,image,answer\n1,a.jpg,\n1,b.jpg,\n1,a.jpg,\n", "s.csv:4: id a.jpg#1 was already in line 2"),
        ("id,answer\n1,\n2,\n1,\n", "s.csv:4: id 1 was already in line 2"),
        ("id,answer\n1,\n2,\n", "ids that the questions have under several images, but"),
    ],
)
def test_a_sample_that_asks_twice_or_once_too_few_is_explained(
    tmp_path: Path, sample: str, expected: str
) -> None:
    (tmp_path / "s.csv").write_text(sample)
    rows = [{"id": id, "answer": "예"} for id in ("a.jpg#1", "b.jpg#1", "2")]
    with pytest.raises(DataError) as caught:
        write_submission("csv", write_predictions(tmp_path, *rows), tmp_path / "s.csv", tmp_path / "o.csv")
    assert expected in caught.value.message
    assert not (tmp_path / "o.csv").exists()


def test_dacon_takes_every_id_once_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("ID,answer\nTEST_0,\nTEST_1,\n")
    rows = [{"id": id, "answer": "yes"} for id in ("test/a.jpg#TEST_0", "test/b.jpg#TEST_0", "TEST_1")]
    with pytest.raises(
        DataError, match=r"several images, but .*s\.csv has once: 2 ids: test/a\.jpg#TEST_0"
    ) as caught:
        write_submission("dacon", write_predictions(tmp_path, *rows), tmp_path / "s.csv", tmp_path / "o.csv")
    assert "an id of its own" in caught.value.hint


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ('{"question_id": 7, "image_id": 2}', "under several images: 1 id: 7"),
        (
            '{"question_id": [7], "image_id": 2}',
            r"record 2 \(image_id 2\): 'question_id' is a list, not a text",
        ),
        ('{"question_id": NaN, "image_id": 2}', "no prediction for 1 id: "),
        ('{"question_id": 7, "question_id": 8}', "'question_id' appears twice"),
    ],
)
def test_questions_whose_ids_cannot_be_answered_once_each(tmp_path: Path, second: str, expected: str) -> None:
    (tmp_path / "q.json").write_text(f'{{"questions": [{{"question_id": 7, "image_id": 1}}, {second}]}}')
    path = write_predictions(tmp_path, {"id": "7", "answer": "yes"})
    with pytest.raises(DataError, match=expected):
        write_submission("vqav2", path, tmp_path / "q.json", tmp_path / "o.json")


def test_a_question_that_the_challenges_file_repeats_is_answered_once(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text('{"questions": [%s, %s]}' % (('{"question_id": 7, "image_id": 1}',) * 2))
    path = write_predictions(tmp_path, {"id": "7", "answer": "yes"})
    write_submission("vqav2", path, tmp_path / "q.json", tmp_path / "o.json")
    assert json.loads((tmp_path / "o.json").read_text()) == [{"question_id": 7, "answer": "yes"}]
