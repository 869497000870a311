"""Rows as the bytes of a table that other programs open: CSV, TSV, JSON lines, a JSON list, Parquet or Excel.

| suffix | form |
|---|---|
| .csv, .tsv | UTF-8 with a byte-order mark (without one Excel reads Hangul as another encoding), CRLF, quoted where needed |
| .jsonl, .ndjson | one JSON object a line |
| .json | a JSON list, one object a line |
| .parquet | a column keeps its type where all its values have one; else JSON text |
| .xlsx | one sheet; texts stay texts, also those that look like numbers or formulas |

Cells are written as they are. A text that begins with = + - or @ stays what it is, since answers such as "-3" are
data: a spreadsheet that opens the CSV may take it for a formula; in an .xlsx it is marked as text.
"""

from __future__ import annotations

import csv
import importlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.data.example import json_line
from kovqa_core.errors import MachineError, SettingsError
from kovqa_core.messages import message

if TYPE_CHECKING:
    import pyarrow

Rows = Sequence[Mapping[str, object]]  # column -> JSON value

# Of one sheet (Excel specifications and limits, Microsoft 365).
_EXCEL_MAX_ROWS, _EXCEL_MAX_COLUMNS, _EXCEL_MAX_CHARS = 1_048_576, 16_384, 32_767
_EXCEL_MAX_LISTED = 100  # answers of a column `likeliest`: then each may have 300 letters
_EXCEL_MAX_INT = 10**15  # Excel keeps 15 digits of a number
# What no cell of a text table can hold: NUL ends a text for many readers; half a character is not UTF-8.
_BROKEN_CHARACTER = re.compile("[\0\ud800-\udfff]")
_EXCEL_CONTROL_CHARACTER = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_REPLACEMENT_CHARACTER = "\ufffd"


def require_table_format(path: Path) -> None:
    """See that a table can be written under this name.

    Raises:
        SettingsError: its suffix is none that is known.
        MachineError: the library that writes it is not installed.
    """
    if path.suffix.lower() not in _WRITERS:
        raise SettingsError(
            message(
                "data.unknown-output-format",
                "{path}: unknown format '{suffix}'",
                path=path,
                suffix=path.suffix,
            ),
            message(
                "data.unknown-output-format.hint", "its name ends in {suffixes}", suffixes=", ".join(_WRITERS)
            ),
        )
    library = {".parquet": "pyarrow", ".xlsx": "openpyxl"}.get(path.suffix.lower())
    if library is None:
        return
    try:
        importlib.import_module(library)
    except ImportError:
        raise MachineError(
            message("data.output-library", "{path}: writing it needs {library}", path=path, library=library),
            message("data.output-library.hint", "pip install 'kovqa[tables]', or write a .csv"),
        ) from None


def require_table_fits(path: Path, rows: Rows, more_columns: int = 0) -> None:
    """See that a format holds the rows that will be written; only Excel's has limits that people reach.

    Args:
        path: of the table.
        rows: what is known of them before the work.
        more_columns: that they will get.

    Raises:
        SettingsError: too many rows or columns, or a text that is too long.
    """
    if path.suffix.lower() != ".xlsx":
        return
    hint = message("data.excel-limit.hint", "write a .csv, a .jsonl or a .parquet instead")
    columns = len(_column_names(rows)) + more_columns
    if len(rows) + 1 > _EXCEL_MAX_ROWS or columns > _EXCEL_MAX_COLUMNS:
        raise SettingsError(
            message(
                "data.excel-sheet-too-small",
                "{path}: {rows:,} rows of {columns:,} columns; a sheet of Excel holds {max_rows:,} rows, its header "
                "one of them, and {max_columns:,} columns",
                path=path,
                rows=len(rows),
                columns=columns,
                max_rows=_EXCEL_MAX_ROWS,
                max_columns=_EXCEL_MAX_COLUMNS,
            ),
            hint,
        )
    for number, row in enumerate(rows, 1):
        for name, value in row.items():
            if isinstance(value, str | list | dict) and len(_cell_text(value)) > _EXCEL_MAX_CHARS:
                raise SettingsError(
                    message(
                        "data.excel-cell-too-long",
                        "{path}: row {row}, column {column} has more than the {most:,} characters that a cell of Excel "
                        "holds",
                        path=path,
                        row=number,
                        column=name,
                        most=_EXCEL_MAX_CHARS,
                    ),
                    hint,
                )


def require_list_fits(path: Path, length: int) -> None:
    """See that a format's cells hold lists of so many short texts.

    Raises:
        SettingsError: they do not.
    """
    if path.suffix.lower() == ".xlsx" and length > _EXCEL_MAX_LISTED:
        raise SettingsError(
            message(
                "data.excel-list-too-long",
                "{path}: a list of {length:,} answers does not fit into a cell of Excel, which holds {most:,} characters",
                path=path, length=length, most=_EXCEL_MAX_CHARS,
            ),
            message("data.excel-list-too-long.hint", "list {most} at most, or write a .csv, a .jsonl or a .parquet",
                    most=_EXCEL_MAX_LISTED),
        )  # fmt: skip


def encode_table(path: Path, rows: Rows) -> bytes:
    """The bytes of a table in the format of its name; see this module's table.

    Args:
        path: where it will be; `require_table_format` has taken it.
        rows: each a mapping of column to JSON value. Columns come in the order in which they first appear.
    """
    return _WRITERS[path.suffix.lower()](rows)


def is_json_table(path: Path) -> bool:
    """Is it written as JSON objects, each with columns of its own?"""
    return path.suffix.lower() in (".jsonl", ".ndjson", ".json")


def _column_names(rows: Rows) -> list[str]:
    return [*dict.fromkeys(name for row in rows for name in row)]


def _cell_text(value: object) -> str:
    """A JSON value as the text of a cell; null is empty, lists and objects are JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json_line(value)


def _encode_csv(rows: Rows, delimiter: str) -> bytes:
    # `newline`: the writer's line ends stay as they are, and so do those inside a cell.
    stream = io.StringIO(newline="")
    # Line ends of both kinds are quoted because "\r\n" is the line end here.
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\r\n")
    columns = _column_names(rows)
    writer.writerow(map(_csv_text, columns))
    writer.writerows([_csv_text(_cell_text(row.get(name))) for name in columns] for row in rows)
    return b"\xef\xbb\xbf" + stream.getvalue().encode()


def _csv_text(text: str) -> str:
    return _BROKEN_CHARACTER.sub(_REPLACEMENT_CHARACTER, text)


def _encode_jsonl(rows: Rows) -> bytes:
    return "".join(f"{json_line(row)}\n" for row in rows).encode()


def _encode_json(rows: Rows) -> bytes:
    return "[{}]\n".format(",".join(f"\n{json_line(row)}" for row in rows) + "\n").encode()


def _encode_parquet(rows: Rows) -> bytes:
    import pyarrow
    import pyarrow.parquet

    columns = {name: _parquet_column([row.get(name) for row in rows]) for name in _column_names(rows)}
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def _parquet_column(values: Sequence[object]) -> pyarrow.Array:
    """Values of one type as a column of it, all others as a column of texts."""
    import pyarrow

    texts = [None if value is None else _csv_text(_cell_text(value)) for value in values]
    if all(value is None or isinstance(value, str) for value in values):
        return pyarrow.array(texts, pyarrow.string())
    if not any(isinstance(value, dict) for value in values):
        try:
            return pyarrow.array(values)
        except (pyarrow.ArrowException, UnicodeEncodeError, OverflowError):  # of several types
            pass
    return pyarrow.array(texts, pyarrow.string())


def _require_excel_texts(rows: Rows) -> None:
    """See that no text is longer than a cell: openpyxl would cut it.

    Raises:
        SettingsError: one is.
    """
    longest = max((len(_cell_text(value)) for row in rows for value in row.values()), default=0)
    if longest > _EXCEL_MAX_CHARS:
        raise SettingsError(
            message(
                "data.excel-text-too-long", "a text of {length:,} characters does not fit into a cell of Excel",
                length=longest,
            ),
            message("data.excel-limit.hint", "write a .csv, a .jsonl or a .parquet instead"),
        )  # fmt: skip


def _encode_xlsx(rows: Rows) -> bytes:
    import openpyxl
    from openpyxl.cell import WriteOnlyCell

    _require_excel_texts(rows)
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("predictions")

    def cell(value: object) -> object:
        if isinstance(value, bool | float) or value is None:
            return value
        if isinstance(value, int) and abs(value) < _EXCEL_MAX_INT:
            return value
        text = _EXCEL_CONTROL_CHARACTER.sub(_REPLACEMENT_CHARACTER, _cell_text(value))
        written = WriteOnlyCell(sheet, text)
        written.data_type = "s"  # else openpyxl makes a formula of "=1+1"
        return written

    columns = _column_names(rows)
    sheet.append([cell(name) for name in columns])
    for row in rows:
        sheet.append([cell(row.get(name)) for name in columns])
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


_WRITERS: dict[str, Callable[[Rows], bytes]] = {
    ".jsonl": _encode_jsonl,
    ".csv": partial(_encode_csv, delimiter=","),
    ".tsv": partial(_encode_csv, delimiter="\t"),
    ".json": _encode_json,
    ".parquet": _encode_parquet,
    ".xlsx": _encode_xlsx,
    ".ndjson": _encode_jsonl,
}
