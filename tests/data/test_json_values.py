"""JSON's values: what Python's own reader lets pass in silence, or ends with a traceback."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.data.json_stream import iter_json_list, iter_json_records
from kovqa_core.data.json_values import decode_json_line
from kovqa_core.data.tables import cell_text, read_table
from kovqa_core.errors import DataError

LONG = "9" * 5000
DEEP = "[" * 200_000


def write_rows(folder: Path, *rows: str) -> Path:
    path = folder / "a.json"
    path.write_text('{"rows": [\n' + ",\n".join(rows) + "\n]}", "utf-8")
    return path


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "null"])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_literal_for_nothing_is_an_empty_cell(tmp_path: Path, literal: str, as_text: bool) -> None:
    path = write_rows(tmp_path, f'{{"a": {literal}, "b": ["{literal}", {literal}]}}')
    (row,) = iter_json_records(path, "rows", as_text=as_text)
    assert cell_text(row["a"]) == "" and list(map(cell_text, row["b"])) == [literal, ""]
    (value,) = decode_json_line(f"[{literal}]", as_text=as_text)
    assert cell_text(value) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), (None, ""), (float("nan"), ""), (float("-inf"), ""), (0, "0"), (1.5, "1.5"),
     ("nan", "nan"), ("null", "null")],
)  # fmt: skip
def test_a_cell_as_text(value: object, text: str) -> None:
    assert cell_text(value) == text


@pytest.mark.parametrize("value", [[], ["a"], {"a": 1}])
def test_a_list_is_no_text(value: object) -> None:
    with pytest.raises(TypeError):
        cell_text(value)


def test_an_integer_of_any_length_is_read(tmp_path: Path) -> None:
    path = write_rows(tmp_path, f'{{"id": {LONG}}}', f'{{"id": -{LONG}}}', '{"id": 7}')
    assert [row["id"] for row in iter_json_records(path, "rows", as_text=True)] == [LONG, f"-{LONG}", "7"]
    assert [row["id"] for row in iter_json_records(path, "rows")] == [LONG, f"-{LONG}", 7]
    (tmp_path / "t.jsonl").write_text(f'{{"id": {LONG}}}')
    assert [[row["id"] for _, row in read_table(tmp_path / "t.jsonl", as_text=some)] for some in (True, False)] == [
        [LONG], [LONG],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        '{"id": 1, "a": 1, "a": 2}',
        '{"a": 1, "a": 1}',
        '{"a" :1, "a" :1}',
        '{"x": {"a": [1], "a": 2}}',
        '{"x": [{"y": 1}, {"a": "", "a": ""}]}',
        '{"time": "12:30", "a": 1, "\\u0061": 2}',
    ],
)
def test_a_key_that_is_there_twice_is_named_with_its_line(tmp_path: Path, row: str) -> None:
    path = write_rows(tmp_path, '{"a": 1}', row, '{"a": 3}')
    with pytest.raises(DataError, match=r"a\.json:3: .*'a' appears twice"):
        list(iter_json_records(path, "rows"))
    (tmp_path / "l.json").write_text(f'[{{"a": 1}},\n{row}]')
    with pytest.raises(DataError, match=r"l\.json:2: .*'a' appears twice"):
        list(iter_json_list(tmp_path / "l.json"))
    (tmp_path / "t.jsonl").write_text(f'{{"a": 1}}\n{row}\n')
    with pytest.raises(DataError, match=r"t\.jsonl:2: .*'a' appears twice"):
        list(read_table(tmp_path / "t.jsonl"))


def test_the_second_of_two_lists_is_an_error_not_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"rows": [{"a": 1}],\n"other": 1,\n"rows": [{"a": 2}]}')
    with pytest.raises(DataError, match=r"a\.json:3: .*'rows' appears twice"):
        list(iter_json_records(tmp_path / "a.json", "rows"))


def test_records_with_colons_nested_or_not_are_what_json_reads(tmp_path: Path) -> None:
    """Rows are first read without looking for doubled keys: none is changed where the reader changes over."""
    draw = random.Random(1)
    texts = ["", ":", "a:b", '"', "\\", "한글:", "{", "}"]

    def value(depth: int) -> Any:
        kind = draw.randrange(6 if depth else 4)
        if kind == 4:
            return [value(depth - 1) for _ in range(draw.randrange(3))]
        if kind == 5:
            return {draw.choice(texts): value(depth - 1) for _ in range(draw.randrange(3))}
        return draw.choice([None, True, draw.randrange(99), draw.choice(texts)])

    for _ in range(40):
        rows = [{draw.choice(texts): value(2) for _ in range(3)} for _ in range(draw.randrange(6))]
        path = write_rows(tmp_path, *(json.dumps(row, ensure_ascii=False) for row in rows))
        assert list(iter_json_records(path, "rows")) == rows


@pytest.mark.parametrize("deep", [DEEP, '{"a":' * 200_000])
def test_deep_nesting_is_named_with_its_line(tmp_path: Path, deep: str) -> None:
    path = write_rows(tmp_path, '{"a": 1}', f'{{"a": {deep}')
    with pytest.raises(DataError, match=r"a\.json:3: .*nested too deep"):
        list(iter_json_records(path, "rows"))
    (tmp_path / "t.jsonl").write_text(f'{{"a": 1}}\n{{"a": {deep}\n')
    with pytest.raises(DataError, match=r"t\.jsonl:2: .*nested too deep"):
        list(read_table(tmp_path / "t.jsonl"))


def test_a_list_in_place_of_a_text_is_named_with_its_record_and_key(tmp_path: Path) -> None:
    path = write_rows(tmp_path, '{"id": 1, "a": "x"}', '{"id": 2, "a": ["x"]}')
    with pytest.raises(DataError, match=r"a\.json: record 2 \(id 2\): 'a' is a list, not a text"):
        list(iter_json_records(path, "rows", ("id", "a"), ("id", "a")))
