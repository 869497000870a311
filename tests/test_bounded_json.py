"""JSON that others write: bounded in depth, in the length of a number, of a line and of a file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from kovqa_core import bounded_json
from kovqa_core.bounded_json import MAX_DEPTH, MAX_INTEGER_DIGITS, parse_json
from kovqa_core.data.example import parse_example
from kovqa_core.data.json_stream import iter_json_list, iter_json_records, list_json_lists
from kovqa_core.data.json_values import decode_json_line
from kovqa_core.errors import DataError
from kovqa_core.files import read_json
from kovqa_core.index.reader import IndexSplit

PAD = '"' + "x" * 500 + '"'  # so that no text is too short for brackets


def nested(depth: int, opening: str = "[", inside: str = PAD) -> str:
    closing = {"[": "]", '{"a": ': "}", '[{"a": ': "}]"}[opening]
    return opening * depth + inside + closing * depth


@pytest.mark.parametrize(
    "text",
    ["1", '"[[[["', "[]", '{"a": [1, 2.5, null, true]}', "[" + "[1]," * 5000 + "[1]]", nested(MAX_DEPTH)],
)
def test_ordinary_values_are_what_json_reads(text: str) -> None:
    assert parse_json(text) == json.loads(text)
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert parse_json(text.encode(encoding)) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [nested(MAX_DEPTH + 1), nested(900), nested(100_000), nested(MAX_DEPTH + 1, '{"a": '), nested(MAX_DEPTH, '[{"a": '),
     "[" * 5_000_000, '{"a": ' * 1_000_000],
    ids=range(7),
)  # fmt: skip
def test_what_is_nested_too_deep_is_refused_by_every_reader(tmp_path: Path, text: str) -> None:
    began = time.process_time()
    for read in (parse_json, decode_json_line):
        with pytest.raises(ValueError, match=r"nested too deep|Expecting"):
            read(text)
    with pytest.raises(DataError, match=r"too deep|Expecting"):
        parse_example(f'{{"id": "1", "image": "a", "question": "", "columns": {text}}}', "x:1")
    (tmp_path / "a.json").write_text(f'{{"rows": [{{"id": 1, "x": {text}}}]}}')
    (tmp_path / "b.json").write_text(f"[{text}]")
    for read_file in (
        lambda: read_json(tmp_path / "a.json"),
        lambda: [*iter_json_records(tmp_path / "a.json", "rows")],
        lambda: list_json_lists(tmp_path / "a.json"),
        lambda: [*iter_json_list(tmp_path / "b.json")],
    ):
        with pytest.raises(DataError, match=r"too deep|Expecting|expected"):
            read_file()
    assert time.process_time() - began < 5


@pytest.mark.parametrize("digits", [MAX_INTEGER_DIGITS + 1, 4_000, 1_000_000])
def test_a_number_that_is_too_long_is_refused(tmp_path: Path, digits: int) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=f"a number of {digits:,} digits"):
        parse_json('{"step": -' + "9" * digits + "}")
    with pytest.raises(DataError, match=f"x:1: .*a number of {digits:,} digits"):
        parse_example(
            '{"id": "1", "image": "", "question": "", "answers": {"a": ' + "1" * digits + "}}", "x:1"
        )
    (tmp_path / "a.json").write_text("1" * digits)
    with pytest.raises(DataError, match=r"a\.json: .*a number of"):
        read_json(tmp_path / "a.json")
    # Of data it is an id, and stays a text.
    assert decode_json_line('{"id": ' + "1" * digits + "}") == {"id": "1" * digits}
    assert float(parse_json("9" * MAX_INTEGER_DIGITS)) < float("inf")
    assert time.process_time() - began < 2


def test_a_file_that_is_no_document_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    os.truncate(path, 1 << 40)
    with pytest.raises(
        DataError, match=r"config\.json has 1,099,511,627,776 bytes, more than the 536,870,912"
    ):
        read_json(path)


def test_an_index_line_has_a_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(
        '{"id": "1", "image": "", "question": ""}\n{"id": "2", "image": "", "question": "' + "x" * 99 + '"}\n'
    )
    monkeypatch.setattr("kovqa_core.index.reader.MAX_LINE_CHARS", 60)
    split = IndexSplit(path)
    assert split[0].id == "1"
    with pytest.raises(DataError, match=r"train\.jsonl:2: a line of more than 60 characters"):
        split[1]


def test_brackets_in_texts_are_no_nesting() -> None:
    text = json.dumps({"question": "[" * 5000, "answer": "{" * 5000})
    assert parse_json(text)["answer"] == "{" * 5000
    bounded_json.check_depth(parse_json(text), text)
