"""Lists of records in JSON files, streamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.data import json_stream as module
from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.errors import DataError


@pytest.fixture(params=[1, 7, 1 << 22])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes read at once: a record, a letter, a number may be cut anywhere."""
    monkeypatch.setattr(module, "_READ_BLOCK_BYTES", request.param)
    return int(request.param)


def written(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_text(content, encoding)
    return path


def read(path: Path, *keys: str) -> list[Any]:
    return list(iter_json_records(path, "rows", keys))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
@pytest.mark.parametrize("indent", [None, 2])
def test_records_are_what_json_reads(tmp_path: Path, block: int, encoding: str, indent: int | None) -> None:
    rows = [
        {"글": '한 "줄"\n더', "n": -12.5e3, "list": [[], {}, [1, {"a": None}]]},
        {"글": ""},
        {"n": 123456},
    ]
    text = json.dumps({"info": {"rows": [1]}, "many": [1, [2]], "n": 123, "rows": rows, "end": "끝"},
                      ensure_ascii=False, indent=indent)  # fmt: skip
    assert read(written(tmp_path / "a.json", text, encoding)) == rows


@pytest.mark.parametrize("number", ["12", "1.5", "-1e-7", "1E+3"])
def test_a_number_may_be_cut_anywhere(tmp_path: Path, block: int, number: str) -> None:
    path = written(tmp_path / "a.json", f'{{"version": {number}, "rows": [{number}, {number}]}}')
    assert read(path) == [float(number)] * 2


def test_an_empty_list_is_a_list(tmp_path: Path, block: int) -> None:
    assert read(written(tmp_path / "a.json", ' { "rows" : [ ] } \n')) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("[1]", "no list 'rows'"),
        ('{"other": [{}]}', "no list 'rows'"),
        ('{"rows": {"a": 1}}', "no list 'rows'"),
        ('{"rows": [{"a": 1}\n{"a": 2}]}', ":2: not valid JSON"),
        ('{"rows": [\n{"a": 1},\n{"a": 2]}', ":3: not valid JSON"),
        ('{"rows": [\n{"a": 1},\n', ":3: not valid JSON"),
        ('{"rows": [\n\n{"a": 1', ":3: not valid JSON"),
        ('{"rows": [{"a": 1}]}\nmore', ":2: not valid JSON"),
        ('{"rows": [{"b": 1}]}', "record 1 lacks 'a'"),
        ('{"rows": [{"a": 1}, 2]}', "record 2 lacks 'a'"),
    ],
)
def test_broken_files_are_named_with_their_line(tmp_path: Path, block: int, text: str, expected: str) -> None:
    path = written(tmp_path / "a.json", text)
    with pytest.raises(DataError) as caught:
        read(path, "a")
    assert str(path) in caught.value.message and expected in caught.value.message


def test_letters_of_no_encoding_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('{"rows": [\n"한글",\n'.encode() + b'"\xff"]}')
    with pytest.raises(DataError, match=r":3: damaged UTF-8: byte 22 \(0xFF\) fits no letter"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*gone\.json"):
        read(tmp_path / "gone.json")
