"""Rows of CSV and TSV."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kovqa_core.data.tables import text_lines
from kovqa_core.data.tables.table_format import TableFormat
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.messages import message

CheckHeader = Callable[[Sequence[str], str], None]  # of the names of the columns, and FILE:LINE


def read_csv_rows(
    path: Path, form: TableFormat, check_header: CheckHeader
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with the line each begins in.

    Raises:
        DataError: with file and line: quotation marks, or numbers of cells, that do not fit.
    """
    # The module's own limit is 131,072 characters a cell; without any, memory would be the limit.
    csv.field_size_limit(text_lines.MAX_CELL_CHARS)
    lines = itertools.islice(text_lines.iter_table_lines(path, form.line_end), form.skipped_lines, None)
    # `strict`: without it a quotation mark that is never closed swallows the rest of the file unnoticed.
    reader = csv.reader(lines, delimiter=form.delimiter, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1 + form.skipped_lines  # a row may have several lines: known by its first
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
        # Excel writes `,,,` for rows that only look empty.
        if not any(map(str.strip, cells)):
            continue
        if not header:
            header = name_columns(cells, f"{path}:{line}")
            check_header(header, f"{path}:{line}")
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
        raise text_lines.empty_table_error(path)


def name_columns(cells: Sequence[str], place: str) -> list[str]:
    """Names of the columns; one without a name (spreadsheets, pandas' index) is not read.

    Raises:
        DataError: a name that is there twice.
    """
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
