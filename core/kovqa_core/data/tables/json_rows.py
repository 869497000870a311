"""Rows of JSON: one a line, a list of them, or a list that an object holds under one name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kovqa_core.data.json_stream import iter_json_list, iter_named_list
from kovqa_core.data.json_values import JsonValue, decode_json_line
from kovqa_core.data.tables.table_format import TableFormat
from kovqa_core.data.tables.text_lines import TABLE_FORMATS_HINT, empty_table_error, iter_table_lines
from kovqa_core.errors import DataError
from kovqa_core.messages import message


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
