"""A raw table to answer: the ids that its index has, or a line that says what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.answer.question_rows import notes_of, read_question_table
from kovqa_core.errors import DataError
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import IndexSplit

ROWS = [("1", "a.png", "뭐?"), ("1", "b.png", "뭐?"), ("2", "a.png", "왜?"), ("1", "b.png", "누구?")]


def write_table(folder: Path, name: str, rows: list[tuple[str, str, str]]) -> Path:
    columns = ("id", "image", "question", "answer", "split")
    records = [dict(zip(columns, (*row, "예", "test"), strict=True)) for row in rows]
    for row in rows:
        (folder / row[1]).touch()
    path = folder / name
    if name.endswith(".csv"):
        path.write_text(
            "\n".join(",".join(cells) for cells in [columns, *(r.values() for r in records)]), "utf-8"
        )
    elif name.endswith(".json"):
        path.write_text("[" + ",\n".join(json.dumps(record) for record in records) + "]")
    else:
        path.write_text("\n".join(json.dumps(record) for record in records))
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
def test_a_table_to_answer_has_the_ids_of_its_index(tmp_path: Path, name: str) -> None:
    table = write_table(tmp_path, name, ROWS)
    build_index("table", table, None, tmp_path / "index")
    indexed = [(e.id, e.image, e.question) for e in IndexSplit(tmp_path / "index" / "test.jsonl")]
    answered = [row.example for row in read_question_table(table)]
    assert [(e.id, e.image, e.question) for e in answered] == indexed
    assert [e.id for e in answered] == ["a.png#1", "b.png#1#1", "2", "b.png#1#2"]
    # The split's own rows have ids of their own already.
    again = read_question_table(tmp_path / "index" / "test.jsonl")
    assert [row.example.id for row in again] == [e.id for e in answered]


@pytest.mark.parametrize(("name", "line"), [("t.csv", 6), ("t.jsonl", 5)])
def test_a_row_that_is_there_twice_is_answered_once(tmp_path: Path, name: str, line: int) -> None:
    """As in an index, and named."""
    table = write_table(tmp_path, name, [*ROWS, ROWS[1]])
    duplicates: list[str] = []
    rows = read_question_table(table, on_duplicate=duplicates.append)
    assert [row.example.id for row in rows] == ["a.png#1", "b.png#1#1", "2", "b.png#1#2"]
    assert duplicates == [f"1 ({table}:{line})"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"id": 1, "image": "a.png", "question": ["q"]}', "t.jsonl:1: question is a list, not a text"),
        ('{"id": {"a": 1}, "image": "a.png", "question": "q"}', "t.jsonl:1: id is a dict, not a text"),
        ('{"id": 1, "image": "a.png", "question": "q", "kind": ["x"]}', "t.jsonl:1: kind is a list, not a text"),
        ('{"id": 1, "id": 2, "image": "a.png", "question": "q"}', "t.jsonl:1: .*'id' appears twice"),
        ('{"id": 1, "image": "a.png", "question": ' + "[" * 200_000, "t.jsonl:1: .*nested too deep"),
    ],
)  # fmt: skip
def test_cells_that_are_not_texts_are_named_with_their_line(tmp_path: Path, row: str, expected: str) -> None:
    (tmp_path / "t.jsonl").write_text(row)
    with pytest.raises(DataError, match=expected):
        read_question_table(tmp_path / "t.jsonl")


@pytest.mark.parametrize("nothing", ["null", "NaN", '""', "Infinity"])
@pytest.mark.parametrize("column", ["image", "question"])
def test_a_cell_that_says_nothing_is_a_fault_of_its_row(tmp_path: Path, nothing: str, column: str) -> None:
    row = {"id": "7", "image": "a.png", "question": "q"} | {column: "HERE"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row).replace('"HERE"', nothing))
    (row_read,) = read_question_table(tmp_path / "t.jsonl")
    assert row_read.fault == f"{tmp_path / 't.jsonl'}:1: no {column}"
    assert "nan" not in (row_read.example.image, row_read.example.question.lower())


def test_an_id_of_any_length_is_an_id(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(f'{{"id": {"9" * 5000}, "image": "a.png", "question": "q"}}')
    assert [row.example.id for row in read_question_table(tmp_path / "t.jsonl")] == ["9" * 5000]


def test_ids_that_were_told_apart_are_said(tmp_path: Path) -> None:
    table = write_table(tmp_path, "t.csv", ROWS)
    assert [str(note) for note in notes_of(table, read_question_table(table))] == [
        "3 rows share their id with another image or question: their images tell them apart (first: a.png#1)"
    ]
    alone = write_table(tmp_path, "u.csv", ROWS[1:3])
    assert notes_of(alone, read_question_table(alone)) == []
