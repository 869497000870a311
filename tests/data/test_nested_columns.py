"""Columns inside of columns, in JSON lines, parquet and webdatasets: `--column question=qa.question`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.data.table_columns import TableRecord, known_columns, read_table_records
from kovqa_core.data.tables import holds_images, read_table
from kovqa_core.errors import DataError

from tests.data.test_parquet_tables import PNG, RED, parquet
from tests.data.test_webdataset import picture, write_tar

COLUMNS = {"question": "qa.question", "answer": "qa.answer"}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        return parquet(path, rows)
    if path.suffix == ".tar":
        files = [
            (f"{number}{end}", data)
            for number, row in enumerate(rows)
            for end, data in ((".png", picture(number)), (".json", json.dumps(row).encode()))
        ]
        return write_tar(path, files)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def records(path: Path, columns: dict[str, str]) -> list[TableRecord]:
    known = known_columns(columns)
    required = {name: known[name] for name in ("image", "question")}
    return list(read_table_records(path, known, required, columns))


FORMATS = pytest.mark.parametrize("name", ["t.jsonl", "t.parquet", "t.tar"])


@FORMATS
def test_a_field_of_an_object(tmp_path: Path, name: str) -> None:
    rows = [
        {"id": 7, "image": "a.png", "qa": {"question": "뭐?", "answer": "별", "score": 3}},
        {"id": 8, "image": "b.png", "qa": {"question": "색?", "answer": None, "score": 4}},
    ]
    first, second = records(written(tmp_path / name, rows), COLUMNS)
    assert (first.id, first.text("question"), first.texts("answer")) == ("7", "뭐?", ["별"])
    assert (second.text("question"), second.texts("answer")) == ("색?", [""])
    assert first.other_columns(("question", "answer", "image", "id"))["qa"] == {
        "question": "뭐?",
        "answer": "별",
        "score": 3,
    }


@FORMATS
@pytest.mark.parametrize("form", ["list of objects", "object of lists"])
def test_each_question_of_a_list_is_a_row(tmp_path: Path, name: str, form: str) -> None:
    pairs = [("뭐?", ["별", "별표"]), ("색?", ["빨강"])]
    qa: Any = [{"question": question, "answer": answers} for question, answers in pairs]
    if form == "object of lists":
        qa = {"question": [question for question, _ in pairs], "answer": [answers for _, answers in pairs]}
    rows = [{"id": "x", "image": "a.png", "qa": qa, "url": "u"}]
    found = records(written(tmp_path / name, rows), COLUMNS)
    assert [(row.id, row.text("question"), row.texts("answer")) for row in found] == [
        ("x/1", "뭐?", ["별", "별표"]),
        ("x/2", "색?", ["빨강"]),
    ]
    assert found[0].other_columns(("question", "answer", "image", "id")) == {"url": "u"}
    assert len({row.text("image") for row in found}) == 1


@FORMATS
def test_answers_of_annotators_choices_and_a_path_inside(tmp_path: Path, name: str) -> None:
    row = {
        "question": "뭐?", "annotations": [{"answer": "별"}, {"answer": "원"}], "file": {"path": "a.png"},
        "options": {"A": "별", "B": "원", "C": None},
    }  # fmt: skip
    columns = {"answer": "annotations.answer", "image": "file.path"}
    [found] = records(written(tmp_path / name, [row]), columns)
    assert found.texts("answer") == ["별", "원"]
    assert found.choices() == ("별", "원")
    assert found.text("image") == ("t.tar/0.png" if name == "t.tar" else "a.png")


@FORMATS
def test_a_name_that_is_not_there_is_compared_with_those_inside(tmp_path: Path, name: str) -> None:
    table = written(tmp_path / name, [{"image": "a.png", "qa": {"question": "뭐?", "answer": "별"}}])
    with pytest.raises(DataError, match=r"no column 'qa\.questoin'.*did you mean 'qa\.question'") as caught:
        records(table, {"question": "qa.questoin"})
    assert "--column question=qa.question" in caught.value.hint
    with pytest.raises(DataError, match=r"qa\.question"):
        records(table, {})


def test_a_column_whose_own_name_has_a_dot_comes_first(tmp_path: Path) -> None:
    row = {"image": "a.png", "qa.question": "점?", "qa": {"question": "속?", "answer": "별"}}
    [found] = records(written(tmp_path / "t.jsonl", [row]), COLUMNS)
    assert (found.text("question"), found.text("answer")) == ("점?", "별")


def test_images_inside_of_parquet(tmp_path: Path) -> None:
    """Hugging Face's struct of bytes and path, in a struct of the sample, and in lists of one and of several."""
    sample = {"question": "뭐?", "image": {"bytes": PNG, "path": "a.png"}}
    table = parquet(tmp_path / "t.parquet", [{"id": 1, "sample": sample}])
    columns = {"image": "sample.image", "question": "sample.question"}
    assert holds_images(table, known_columns(columns)["image"])
    saved: dict[str, bytes] = {}
    rows = list(read_table(table, {"image": ("sample.image",)}, save_image=saved.__setitem__))
    assert saved == {"a.png": PNG}
    assert rows[0][1]["sample.image"] == "a.png"
    assert [row.text("image") for row in records(table, columns)] == ["a.png"]

    images = [{"bytes": PNG, "path": "a.png"}, {"bytes": RED, "path": "b.png"}]
    table = parquet(
        tmp_path / "l.parquet",
        [{"id": 1, "images": images[:1], "question": "뭐?"}, {"id": 2, "images": images, "question": "뭐?"}],
    )
    one, two = records(table, {})
    assert (one.text("image"), one.problem) == ("a.png", "")
    assert "2 images" in two.problem


def test_conversations_in_parquet_with_several_images_are_left_out(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "뭐?"}, {"role": "assistant", "content": "별"}]
    for name in ("t.jsonl", "t.parquet"):
        rows = [{"images": ["a.png"], "messages": talk}, {"images": ["a.png", "b.png"], "messages": talk}]
        one, two = records(written(tmp_path / name, rows), {})
        assert (one.text("image"), one.text("answer"), one.problem) == ("a.png", "별", "")
        assert "2 images" in two.problem
