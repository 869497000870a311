"""Text of a table or an index to train a tokenizer on: its columns of text, never ids, file names or JSON's keys.

A table is known by its file name's suffix, JSON lines by what is in them too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.data.file_kind import PARQUET_MAGIC, ZIP_HEADS
from kovqa_core.data.tables import COLUMN_ALIASES, read_table
from kovqa_core.errors import DataError
from kovqa_core.files import open_file
from kovqa_core.messages import message

TEXT_COLUMNS = ("question", "answer", "caption", "choices", "context", "hint")
_TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xlsx", ".parquet")
_MAX_FIRST_LINE_BYTES = 1 << 20  # bytes of a first line that is looked at


@dataclass(frozen=True)
class TableChunk:
    """The text of a whole table.

    Attributes:
        path: the table.
        columns: those the user named, by the table's own names; none: those of `TEXT_COLUMNS`.
    """

    path: Path
    columns: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The text, cell by cell, a line for each of a cell's own.

        Raises:
            DataError: the table cannot be read, or has none of the columns.
        """
        wanted = self.columns or _known_text_columns()
        found: set[str] = set()
        first_columns: Sequence[str] | None = None
        for _, row in read_table(self.path):
            first_columns = list(row) if first_columns is None else first_columns
            for column in wanted:
                if column in row:
                    found.add(column)
                    yield from cell_lines(row[column])
        missing = [column for column in self.columns if column not in found]
        if missing or not found:
            raise _no_column_error(self.path, missing, first_columns or ())


def is_table(path: Path) -> bool:
    """Is a file a table: by its suffix (also before `.gz`), or by what it begins with (JSON, parquet, Excel's zip)?"""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    if suffixes and suffixes[-1] in _TABLE_SUFFIXES:
        return True
    with open_file(path) as stream:
        first = stream.readline(_MAX_FIRST_LINE_BYTES).removeprefix(b"\xef\xbb\xbf")
    # Any zip: the reader of tables says what is in it, where that is not a workbook.
    if first.startswith((PARQUET_MAGIC, ZIP_HEADS[0])):
        return True
    try:
        return isinstance(parse_json(first), dict)
    except ValueError:
        return False


def corpus_file(path: Path) -> Path:
    """The file an input stands for: of an index its training split, for the others are there to be measured on.

    Raises:
        DataError: a folder that is not an index.
    """
    if not path.is_dir():
        return path
    if not (path / "index.json").is_file():
        raise DataError(
            message("tokenizer.folder-no-index", "{path} is a folder, and not an index", path=path),
            message(
                "tokenizer.folder-no-index.hint", "name an index folder, or the files: {path}/*", path=path
            ),
        )
    return path / "train.jsonl"


def cell_lines(value: object) -> Iterator[str]:
    """The lines of a cell: of a text, of each element of a list, of the answers of an index (answer -> score)."""
    if isinstance(value, str):
        yield from value.splitlines()
    elif isinstance(value, Mapping):
        for text in value:
            yield from cell_lines(text)
    elif isinstance(value, list | tuple):
        for element in value:
            yield from cell_lines(element)


def _known_text_columns() -> list[str]:
    names = (name for column in TEXT_COLUMNS for name in (column, *COLUMN_ALIASES.get(column, ())))
    return list(dict.fromkeys(names))


def _no_column_error(path: Path, missing: Sequence[str], columns: Sequence[str]) -> DataError:
    named = ", ".join(columns) or message("tokenizer.no-columns", "none")
    if missing:
        problem = message(
            "tokenizer.no-such-column", "{path}: no column {missing}; it has {columns}",
            path=path, missing=", ".join(missing), columns=named,
        )  # fmt: skip
    else:
        problem = message(
            "tokenizer.no-text-column", "{path}: none of its columns is known to hold text; it has {columns}",
            path=path, columns=named,
        )  # fmt: skip
    return DataError(problem, message("tokenizer.no-text-column.hint", "name those with text: --column NAME"))
