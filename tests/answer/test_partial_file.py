"""Damaged files of unfinished predictions: file and line are named, and nothing is changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.answer.partial_file import (
    begin_partial_file,
    fingerprint_path,
    partial_file_path,
    resume_partial_file,
)
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import read_json

LINE = '{"id": "1", "answer": "예", "score": 0.5, "row_digest": "a"}\n'


def resume(output: Path) -> set[str]:
    return resume_partial_file(output, {"model": "m"}, lambda: {"1": "a"}).ids


@pytest.fixture
def output(tmp_path: Path) -> Path:
    output = tmp_path / "답.jsonl"
    begin_partial_file(partial_file_path(output), [], {"model": "m"})
    partial_file_path(output).write_text(LINE, "utf-8")
    return output


@pytest.mark.parametrize(
    "line",
    ["null", "7", "[]", "{}", '{"id": []}', '{"id": null}', '"예"', "\0", "[" * 9999, '{"id": 1e999}', "{"],
)
def test_a_line_that_is_none_is_named_and_stays(output: Path, line: str) -> None:
    contents = f"{LINE}{line}\n{LINE}"
    partial_file_path(output).write_text(contents, "utf-8")
    with pytest.raises(DataError, match=r"답\.jsonl\.part:2: not a line"):
        resume(output)
    assert partial_file_path(output).read_text("utf-8") == contents


def test_a_torn_last_line_is_answered_again(output: Path) -> None:
    with partial_file_path(output).open("a", encoding="utf-8") as stream:
        stream.write('{"id": "2", "ans')
    assert resume(output) == {"1"}


def test_answers_decoded_in_another_way_are_kept_apart_where_there_are_some(output: Path) -> None:
    """An option that the model refuses leaves a file without answers behind: it stops no other one."""
    with pytest.raises(SettingsError, match="holds answers decoded in another way"):
        resume_partial_file(output, {"model": "m", "decoding": 1}, dict)
    partial_file_path(output).write_text("")
    assert resume_partial_file(output, {"model": "m", "decoding": 1}, dict).ids == set()
    assert read_json(fingerprint_path(partial_file_path(output)))["decoding"] == 1


@pytest.mark.parametrize("text", ["null", "[]", "7", "", "{", '"예"'])
def test_a_fingerprint_that_is_none_is_named(output: Path, text: str) -> None:
    fingerprint_path(partial_file_path(output)).write_text(text, "utf-8")
    with pytest.raises(DataError, match=r"답\.jsonl\.part\.json"):
        resume(output)
    assert partial_file_path(output).read_text("utf-8") == LINE
