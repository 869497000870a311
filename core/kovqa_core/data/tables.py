"""Users' tables: CSV, TSV, JSON lines or a JSON list, row by row with their line numbers.

Values stay the text they are written with: `NA`, `None`, `null`, `1.0` and `007` are answers like
any other. Nothing is guessed from a column's contents.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from kovqa_core.data.json_stream import decode_blocks, iter_json_list
from kovqa_core.data.json_values import JsonRecord, decode_json_line
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.messages import Message, message

# Our name of a column -> the names it is known by.
COLUMN_ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id", "ID", "question_id", "qid"),
    "image": ("image", "img_path", "image_path", "image_id"),
    "question": ("question",),
    "answer": ("answer", "answers"),
    "split": ("split",),
    "kind": ("kind", "answer_type"),
    "caption": ("caption", "captions"),
}
# A quotation mark too many makes the rest of a CSV one cell: reading stops here, not at the end of memory.
_MAX_CELL_CHARS = 1 << 26
_TABLE_FORMATS_HINT = message("data.table-formats.hint", "a table is a .csv, .tsv, .jsonl or .json file")

TableRows = Iterator[tuple[int, JsonRecord]]  # (number of the line that a row begins in, column -> value)
MissingColumnHint = str | Callable[[str, str], Message]


def read_table(
    path: Path,
    required: Mapping[str, Sequence[str]] | None = None,
    hint: MissingColumnHint = "",
    *,
    as_text: bool = True,
) -> TableRows:
    """Rows of a table with the line each begins in; UTF-8 (with or without a byte-order mark) or CP949.

    Args:
        path: `.csv`, `.tsv`, `.json` (a list of objects); anything else is JSON lines.
        required: our name of a column -> names of which the table must have one.
        hint: what to do when a column is missing; or a function that says so of our name of it and of
            the column that may be meant ("NAME" when none is similar).
        as_text: JSON numbers as the text they are written with; a CSV has nothing but text.

    Raises:
        DataError: an empty file; file and line of a row that is broken or lacks a column.
    """
    suffix, required = path.suffix.lower(), required or {}
    if path.is_dir():
        raise DataError(message("data.table-is-folder", "{file} is a folder", file=path), _TABLE_FORMATS_HINT)
    if suffix in (".csv", ".tsv"):
        yield from _read_csv_rows(path, "\t" if suffix == ".tsv" else ",", required, hint)
        return
    rows = (
        iter_json_list(path, as_text=as_text)
        if suffix == ".json"
        else _read_jsonl_rows(path, as_text=as_text)
    )
    for line, row in rows:
        if not isinstance(row, dict):
            raise DataError(
                message("data.row-not-an-object", "{file}:{line}: not a JSON object", file=path, line=line),
                _TABLE_FORMATS_HINT,
            )
        _require_columns(required, row, f"{path}:{line}", hint)
        yield line, row


def cell_text(value: object) -> str:
    """A cell as NFC text; JSON's null and NaN are empty, its true and false keep their spelling.

    A CSV has nothing but text: its `nan` is one like any other.

    Raises:
        TypeError: a list or an object, which is not a text; the caller knows file, line and column.
    """
    if isinstance(value, str):
        return to_nfc(value)
    # Before str(): Python spells them True and False.
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, list | dict):
        raise TypeError(f"{type(value).__name__}, not a text")
    return to_nfc(str(value))


def record_text(record: Mapping[str, object], column: str, place: str) -> str:
    """The text of a record's column, "" where it has none.

    Args:
        record: column -> value.
        column: its name.
        place: file, line or id of the record, for the error.

    Raises:
        DataError: the value is a list or an object.
    """
    try:
        return cell_text(record.get(column))
    except TypeError:
        raise DataError(
            message(
                "data.cell-not-a-text", "{place}: {column} is a {type}, not a text",
                place=place, column=column, type=type(record[column]).__name__,
            ),
            message("data.cell-not-a-text.hint", "write one text per cell"),
        ) from None  # fmt: skip


def check_unique_id(id: str, line: int, seen: dict[str, int], path: Path) -> None:
    """Add an id to those seen so far.

    Args:
        id: of the row.
        line: number of the row's line.
        seen: id -> its line.
        path: the table, for the error.

    Raises:
        DataError: an earlier line has the id; names both.
    """
    if seen.setdefault(id, line) != line:
        raise DataError(
            message(
                "data.id-twice", "{file}:{line}: id {id} was already in line {first}",
                file=path, line=line, id=id, first=seen[id],
            ),
            message("data.id-twice.hint", "make the ids unique"),
        )  # fmt: skip


# ----------------------------------------------------------------------------------- columns


def _require_columns(
    required: Mapping[str, Sequence[str]], present: Iterable[str], place: str, hint: MissingColumnHint
) -> None:
    columns = list(present)
    unused = set(columns).difference(*required.values())
    for ours, names in required.items():
        if any(name in columns for name in names):
            continue
        similar = _closest_column(names, unused)
        problem = message(
            "data.no-column", "{place}: no column '{column}'; it has {columns}",
            place=place, column=names[0], columns=", ".join(columns) or "none",
        )  # fmt: skip
        if similar:
            problem = message(
                "data.similar-column", "{problem}, did you mean '{column}'?", problem=problem, column=similar
            )
        raise DataError(problem, hint if isinstance(hint, str) else hint(ours, similar or "NAME"))


def _closest_column(names: Sequence[str], unused: Iterable[str]) -> str | None:
    """Of the columns that mean nothing to us, the one spelled most like one of the names."""
    lower = {column.lower(): column for column in sorted(unused)}
    matches = (difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5) for name in names)
    return next((lower[match[0]] for match in matches if match), None)


# ----------------------------------------------------------------------------------- formats


def _iter_table_lines(path: Path) -> Iterator[str]:
    """Lines with their ends. Only line feeds end one: JSON may hold other line separators."""
    rest, number = "", 1
    for block in decode_blocks(path):
        *lines, rest = (rest + block).split("\n")
        for line in lines:
            yield _check_no_nul(line, path, number) + "\n"
            number += 1
        if len(rest) > _MAX_CELL_CHARS:
            raise DataError(
                message(
                    "data.line-too-long", "{file}:{line}: a line of more than {most:,} characters",
                    file=path, line=number, most=_MAX_CELL_CHARS,
                ),
                _TABLE_FORMATS_HINT,
            )  # fmt: skip
    if rest:
        yield _check_no_nul(rest, path, number)


def _check_no_nul(line: str, path: Path, number: int) -> str:
    if "\0" in line:
        raise DataError(
            message(
                "data.nul-in-table", "{file}:{line}: holds a NUL, so it is damaged or not a text file",
                file=path, line=number,
            ),
            message("data.nul-in-table.hint", "save it as UTF-8"),
        )  # fmt: skip
    return line


def _read_csv_rows(
    path: Path,
    delimiter: str,
    required: Mapping[str, Sequence[str]],
    hint: MissingColumnHint,
) -> TableRows:
    # The module's own limit is 131,072 characters a cell; without any, memory would be the limit.
    csv.field_size_limit(_MAX_CELL_CHARS)
    # `strict`: without it a quotation mark that is never closed swallows the rest of the file unnoticed.
    reader = csv.reader(_iter_table_lines(path), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1  # a row may have several lines: it is known by its first
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                message(
                    "data.not-csv", "{file}:{line}: not CSV ({problem})", file=path, line=line, problem=error
                ),
                message(
                    "data.not-csv.hint", "is there a quotation mark that is never closed, or not doubled?"
                ),
            ) from None
        if cells is None:
            break
        if not cells:
            continue
        if not header:
            header = _csv_header(cells, f"{path}:{line}")
            _require_columns(required, header, f"{path}:{line}", hint)
        # Short rows are not filled up: a comma that was not quoted would move every cell by one.
        elif len(cells) == len(header):
            yield line, {name: cell for name, cell in zip(header, cells, strict=True) if name}
        else:
            raise DataError(
                message(
                    "data.wrong-cell-count", "{file}:{line}: {cells} cells where the header names {columns}",
                    file=path, line=line, cells=len(cells), columns=len(header),
                ),
                message("data.wrong-cell-count.hint", 'a cell with a comma needs quotation marks: "…"'),
            )  # fmt: skip
    if not header:
        raise _empty_table_error(path)


def _csv_header(cells: Sequence[str], place: str) -> list[str]:
    """Names of the columns; one without a name (spreadsheets, pandas' index) is not read."""
    # NFC, as our own names are: a header in NFD looks the same, and would match nothing.
    header = [to_nfc(cell).strip() for cell in cells]
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice:
        raise DataError(
            message(
                "data.column-twice", "{place}: column '{column}' appears twice", place=place, column=twice
            ),
            message("data.column-twice.hint", "rename one of them"),
        )
    return header


def _read_jsonl_rows(path: Path, *, as_text: bool) -> Iterator[tuple[int, object]]:
    number = 0
    for number, line in enumerate(_iter_table_lines(path), 1):
        if line.strip():
            try:
                yield number, decode_json_line(line, as_text=as_text)
            except ValueError as error:
                raise DataError(
                    message(
                        "data.not-a-json-line", "{file}:{line}: not a JSON line ({problem})",
                        file=path, line=number, problem=error,
                    ),
                    _TABLE_FORMATS_HINT,
                ) from None  # fmt: skip
    if not number:
        raise _empty_table_error(path)


def _empty_table_error(path: Path) -> DataError:
    return DataError(
        message("data.table-empty", "{file} is empty: it has no rows", file=path),
        message("data.table-empty.hint", "name another table; of an index, a split that has rows"),
    )
