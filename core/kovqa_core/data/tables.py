"""Tables people bring: CSV, TSV, JSON lines or a JSON list, row by row with their line numbers.

Values stay the text they are written with: `NA`, `None`, `null`, `1.0` and `007` are answers like
any other. Nothing is guessed from a column's contents.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kovqa_core.data.json_stream import TEXT_DECODER, decode_blocks, iter_json_list
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc

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
_MAX_CELL_CHARS = 1 << 26  # characters of a line or a cell; a file with a quotation mark too many ends there
_TABLE_FORMATS_HINT = "a table is a .csv, .tsv, .jsonl or .json file"

TableRows = Iterator[tuple[int, dict[str, Any]]]  # (line number, column -> value)


def read_table(
    path: Path, wanted: Mapping[str, Sequence[str]] | None = None, hint: str = "", as_text: bool = True
) -> TableRows:
    """Rows of a table with the line each begins in; UTF-8 (with or without a mark) or CP949.

    Args:
        path: `.csv`, `.tsv`, `.json` (a list of objects); anything else is JSON lines.
        wanted: our name of a column -> names of which the table must have one.
        hint: what to do when it has none; {ours} and {theirs} stand for the two names.
        as_text: JSON numbers as the text they are written with; a CSV has nothing but text.

    Raises:
        DataError: an empty file; file and line of a row that is broken or lacks a column.
    """
    suffix, wanted = path.suffix.lower(), wanted or {}
    if path.is_dir():
        raise DataError(f"{path} is a folder", _TABLE_FORMATS_HINT)
    if suffix in (".csv", ".tsv"):
        yield from _read_csv_rows(path, "\t" if suffix == ".tsv" else ",", wanted, hint)
        return
    for line, row in iter_json_list(path, as_text) if suffix == ".json" else _read_jsonl_rows(path, as_text):
        if not isinstance(row, dict):
            raise DataError(f"{path}:{line}: not a JSON object", _TABLE_FORMATS_HINT)
        _require_columns(wanted, row, f"{path}:{line}", hint)
        yield line, row


def cell_text(value: object) -> str:
    """A cell as NFC text; JSON's null is none, its true and false keep their spelling."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else to_nfc(str(value))


def check_unique_id(id: str, line: int, seen: dict[str, int], path: Path) -> None:
    """Note an id; a `DataError` with both lines when it was there before."""
    if seen.setdefault(id, line) != line:
        raise DataError(f"{path}:{line}: id {id} was already in line {seen[id]}", "make the ids unique")


# ----------------------------------------------------------------------------------- columns


def _require_columns(wanted: Mapping[str, Sequence[str]], has: Iterable[str], where: str, hint: str) -> None:
    columns = list(has)
    free = set(columns).difference(*wanted.values())
    for ours, known in wanted.items():
        if not any(name in columns for name in known):
            near = _closest_column(known, free)
            guess = f", did you mean '{near}'?" if near else ""
            raise DataError(
                f"{where}: no column '{known[0]}'; it has {', '.join(columns) or 'none'}{guess}",
                hint.format(ours=ours, theirs=near or "NAME"),
            )


def _closest_column(known: Sequence[str], free: Iterable[str]) -> str | None:
    lower = {column.lower(): column for column in sorted(free)}
    found = (difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5) for name in known)
    return next((lower[near[0]] for near in found if near), None)


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
                f"{path}:{number}: a line of more than {_MAX_CELL_CHARS:,} characters", _TABLE_FORMATS_HINT
            )
    if rest:
        yield _check_no_nul(rest, path, number)


def _check_no_nul(line: str, path: Path, number: int) -> str:
    if "\0" in line:
        raise DataError(f"{path}:{number}: holds a NUL, so it is damaged or no text", "save it as UTF-8")
    return line


def _read_csv_rows(path: Path, delimiter: str, wanted: Mapping[str, Sequence[str]], hint: str) -> TableRows:
    csv.field_size_limit(_MAX_CELL_CHARS)
    reader = csv.reader(_iter_table_lines(path), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1  # a row may have several lines: it is known by its first
        try:
            cells = next(reader, None)
        except csv.Error as error:
            quotes = "is there a quotation mark that is never closed, or not doubled?"
            raise DataError(f"{path}:{line}: not CSV ({error})", quotes) from None
        if cells is None:
            break
        if not cells:
            continue
        if not header:
            header = _csv_header(cells, f"{path}:{line}")
            _require_columns(wanted, header, f"{path}:{line}", hint)
        elif len(cells) == len(header):
            yield line, {name: cell for name, cell in zip(header, cells, strict=True) if name}
        else:
            counted = f"{len(cells)} cells where the header names {len(header)}"
            raise DataError(f"{path}:{line}: {counted}", 'a cell with a comma must stand in "…"')
    if not header:
        raise DataError(f"{path} is empty", _TABLE_FORMATS_HINT)


def _csv_header(cells: Sequence[str], where: str) -> list[str]:
    """Names of the columns; one without a name (spreadsheets, pandas' index) is not read."""
    header = [to_nfc(cell).strip() for cell in cells]
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice:
        raise DataError(f"{where}: column '{twice}' appears twice", "rename one of them")
    return header


def _read_jsonl_rows(path: Path, as_text: bool) -> Iterator[tuple[int, Any]]:
    decode = TEXT_DECODER.decode if as_text else json.loads
    number = 0
    for number, line in enumerate(_iter_table_lines(path), 1):
        if line.strip():
            try:
                yield number, decode(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not a JSON line ({error})", _TABLE_FORMATS_HINT) from None
    if not number:
        raise DataError(f"{path} is empty", _TABLE_FORMATS_HINT)
