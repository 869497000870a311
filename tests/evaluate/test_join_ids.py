"""Predictions whose ids repeat, or are qualified by an image: joined with the index, or named."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError
from kovqa_core.evaluate.ensemble import vote_on_files
from kovqa_core.evaluate.evaluation import evaluate_file
from kovqa_core.evaluate.join_ids import join_by_image

ROWS = [
    ("동물/1.jpg", "1", "개"),
    ("동물/1.jpg", "2", "둘"),
    ("음식/2.jpg", "1", "밥"),
    ("음식/2.jpg", "3", "셋"),
]
QUALIFIED = ["동물/1.jpg#1", "2", "음식/2.jpg#1", "3"]  # their ids in an index


def write_split(folder: Path, ids: list[str]) -> Path:
    rows = [Example(id, row[0], "뭐?", {row[2]: 1.0}) for id, row in zip(ids, ROWS, strict=True)]
    (folder / "val.jsonl").write_text("".join(f"{row.line()}\n" for row in rows), "utf-8")
    return folder / "val.jsonl"


def write_predictions(folder: Path, rows: list[dict[str, object]]) -> Path:
    (folder / "p.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return folder / "p.jsonl"


@pytest.mark.parametrize("column", ["image", "img_path", "image_id", "Image"])
@pytest.mark.parametrize(
    "spell",
    [
        lambda path: path,
        lambda path: path.rpartition("/")[2],
        lambda path: path.rpartition("/")[2].removesuffix(".jpg"),
        lambda path: unicodedata.normalize("NFD", path),
        lambda path: path.replace("/", "\\"),
    ],
    ids=["path", "name", "stem", "NFD", "backslash"],
)
def test_another_programs_predictions_meet_the_index_by_their_image(
    tmp_path: Path, column: str, spell
) -> None:  # type: ignore[no-untyped-def]
    rows = [{"id": id, column: spell(image), "answer": answer, "score": 0.5} for image, id, answer in ROWS]
    result = evaluate_file(write_predictions(tmp_path, rows[::-1]), write_split(tmp_path, QUALIFIED))
    assert result.scores.total.score == 1.0  # type: ignore[union-attr]
    assert set(result.predictions.texts) == set(result.predictions.confidence) == set(QUALIFIED)


@pytest.mark.parametrize(
    ("predicted", "indexed"),
    [
        (QUALIFIED, QUALIFIED),
        (["1.jpg#1", "2", "2.jpg#1", "3"], QUALIFIED),
        (["1.jpg#1", "1.jpg#2", "2.jpg#1", "2.jpg#3"], QUALIFIED),
        (["동물/1.jpg#1", "2", "음식/2.jpg#1", "3"], ["1", "2", "4", "3"]),
    ],
)
def test_qualified_ids_meet_the_index(tmp_path: Path, predicted: list[str], indexed: list[str]) -> None:
    rows = [{"id": id, "answer": row[2]} for id, row in zip(predicted, ROWS, strict=True)]
    if indexed[2] == "4":
        with pytest.raises(DataError, match="no prediction for 1 id: 4"):
            evaluate_file(write_predictions(tmp_path, rows), write_split(tmp_path, indexed))
        return
    result = evaluate_file(write_predictions(tmp_path, rows), write_split(tmp_path, indexed))
    assert result.scores.total.score == 1.0  # type: ignore[union-attr]


def test_ids_that_repeat_without_an_image_are_named(tmp_path: Path) -> None:
    path = write_predictions(tmp_path, [{"id": id, "answer": answer} for _, id, answer in ROWS])
    with pytest.raises(DataError, match="more than once: 1 id: 1") as caught:
        evaluate_file(path, write_split(tmp_path, QUALIFIED))
    assert "add a column image" in caught.value.hint


def test_a_prediction_that_is_there_twice_is_named(tmp_path: Path) -> None:
    rows = [{"id": id, "image": image, "answer": answer} for image, id, answer in [*ROWS, ROWS[0]]]
    with pytest.raises(DataError, match="more than once: 1 id: 1"):
        evaluate_file(write_predictions(tmp_path, rows), write_split(tmp_path, QUALIFIED))


def test_ids_that_only_the_index_qualifies_are_explained(tmp_path: Path) -> None:
    path = write_predictions(tmp_path, [{"id": id, "answer": "개"} for id in ("1", "2", "3")])
    with pytest.raises(DataError, match=r"no prediction for 2 ids: 동물/1.jpg#1, 음식/2.jpg#1") as caught:
        evaluate_file(path, write_split(tmp_path, QUALIFIED))
    assert "column image" in caught.value.hint


def test_files_with_ids_that_repeat_are_voted_on_by_image(tmp_path: Path) -> None:
    rows = [{"id": id, "image": image, "answer": answer} for image, id, answer in ROWS]
    first = write_predictions(tmp_path, rows)
    other = tmp_path / "q.jsonl"
    other.write_text("\n".join(json.dumps({**row, "answer": "x"}) for row in rows[::-1]), "utf-8")
    vote_on_files([first, other, first], tmp_path / "v.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text("utf-8").splitlines()]
    assert [(line["id"], line["answer"]) for line in lines] == [
        (id, row[2]) for id, row in zip(QUALIFIED, ROWS, strict=True)
    ]


@pytest.mark.parametrize(
    ("ids", "rows", "expected"),
    [
        (["1#7"], [("7", "a/1.jpg"), ("7#", "b/2.jpg")], {"1#7": "7"}),
        (["1#7"], [("a/1.jpg#7", "a/1.jpg"), ("b/1.jpg#7", "b/1.jpg")], {}),  # which of the two?
        (["b/1.jpg#7"], [("7", "b/1.jpg"), ("a/1.jpg#8", "a/1.jpg")], {"b/1.jpg#7": "7"}),
        (["x#y.jpg#7#8"], [("7#8", "d/x#y.jpg")], {"x#y.jpg#7#8": "7#8"}),
        (["a.jpg#7", "d/a.jpg#7"], [("7", "d/a.jpg")], {}),  # two predictions for one row
        (["7"], [("a.jpg#7", "a.jpg")], {}),
    ],
)
def test_ids_and_images_are_joined_only_where_one_row_is_meant(
    ids: list[str], rows: list[tuple[str, str]], expected: dict[str, str]
) -> None:
    assert join_by_image(ids, {}, rows) == expected


def two_questions_about_one_image(folder: Path) -> Path:
    rows = [Example(f"1.jpg#7#{n}", "1.jpg", q, {a: 1.0}) for n, (q, a) in enumerate(QUESTIONS.items(), 1)]
    (folder / "val.jsonl").write_text("".join(f"{row.line()}\n" for row in rows), "utf-8")
    return folder / "val.jsonl"


QUESTIONS = {"무슨 색?": "빨강", "몇 개?": "둘", "어디?": "왼쪽"}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("image", ["1.jpg", "1", "자료/1.jpg"])
def test_questions_with_one_id_and_image_meet_by_their_texts(
    tmp_path: Path, order: tuple[int, ...], image: str
) -> None:
    asked = [(unicodedata.normalize("NFD", q), a) for q, a in QUESTIONS.items()]
    rows = [{"id": 7, "image": image, "question": asked[n][0], "answer": asked[n][1]} for n in order]
    index = two_questions_about_one_image(tmp_path)
    result = evaluate_file(write_predictions(tmp_path, rows), index)
    assert result.scores.total.score == 1.0  # type: ignore[union-attr]
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows[::-1]), "utf-8")
    vote_on_files([tmp_path / "p.jsonl", other], tmp_path / "v.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text("utf-8").splitlines()]
    assert [line["answer"] for line in lines] == [row["answer"] for row in rows]


def test_questions_with_one_id_and_image_that_nobody_can_tell_apart_are_named(tmp_path: Path) -> None:
    rows = [{"id": 7, "image": "1.jpg", "question": q, "answer": a} for q, a in QUESTIONS.items()]
    path = write_predictions(tmp_path, [*rows[:2], {**rows[2], "question": "다른 질문"}])
    with pytest.raises(DataError, match=r"no same question tells which is meant: 1 id: 1.jpg#7#3"):
        evaluate_file(path, two_questions_about_one_image(tmp_path))
    ours = tmp_path / "ours.jsonl"  # of kovqa predict, without questions
    ours.write_text("\n".join(f'{{"id": "1.jpg#7#{n}", "answer": "x"}}' for n in (1, 2, 3)), "utf-8")
    for files in ([path, ours], [ours, path]):
        with pytest.raises(DataError, match=r"3 ids: 1.jpg#7#1, 1.jpg#7#2, 1.jpg#7#3"):
            vote_on_files(files, tmp_path / "v.jsonl")
    vote_on_files([ours, ours], tmp_path / "v.jsonl")
