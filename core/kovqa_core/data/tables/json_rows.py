"""Rows of JSON: one a line, a list of them, or a list that an object holds under one name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from kovqa_core.data.json_stream import iter_json_list, iter_named_list
from kovqa_core.data.json_values import JsonValue, decode_json_line
from kovqa_core.data.tables.table_format import TableFormat
from kovqa_core.data.tables.text_lines import TABLE_FORMATS_HINT, empty_table_error, iter_table_lines
from kovqa_core.errors import DataError
from kovqa_core.messages import message

Row = TypeVar("Row")


def read_json_rows(path: Path, form: TableFormat, *, as_text: bool) -> Iterator[tuple[int, JsonValue]]:
    """Values with the line each begins in; whether they are objects, their reader asks."""
    if form.name == "json-list":
        return iter_json_list(path, as_text=as_text)
    if form.name == "json-object":
        return iter_named_list(path, form.list_name, as_text=as_text)
    return _read_json_lines(path, form.line_end, as_text=as_text)


def _read_json_lines(path: Path, line_end: str, *, as_text: bool) -> Iterator[tuple[int, JsonValue]]:
    number = 0
    for number, line in enumerate(iter_table_lines(path, line_end), 1):
        if line.strip():
            try:
                yield number, decode_json_line(line, as_text=as_text)
            except ValueError as error:
                raise DataError(
                    message(
                        "data.not-a-json-line", "{file}:{line}: not a JSON line ({problem})",
                        file=path, line=number, problem=error,
                    ),
                    TABLE_FORMATS_HINT,
                ) from None  # fmt: skip
    if not number:
        raise empty_table_error(path)


def number_rows(rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, str, Row]]:
    """Rows with the ids of those that have none: their line's number; `1-2`, `1-3` … where a line has several rows.

    A JSON list is often written in one line. With that line's number for an id, all its rows would have one.

    Args:
        rows: with the numbers of their lines.
    """
    last_line, rows_of_line = 0, 0
    for line, row in rows:
        rows_of_line = rows_of_line + 1 if line == last_line else 1
        last_line = line
        yield line, str(line) if rows_of_line == 1 else f"{line}-{rows_of_line}", row
