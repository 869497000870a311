"""The lines of a text table, of any size, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kovqa_core.data.json_stream import decode_blocks
from kovqa_core.errors import DataError
from kovqa_core.messages import message

# A quotation mark too many makes the rest of a CSV one cell: reading stops here, not at the end of memory.
MAX_CELL_CHARS = 1 << 26
TABLE_FORMATS_HINT = message(
    "data.table-formats.hint", "a table is a .csv, .tsv, .jsonl, .json, .xlsx or .parquet file"
)


def iter_table_lines(path: Path, line_end: str = "\n") -> Iterator[str]:
    """Lines with a line feed at their ends.

    Args:
        path: in any encoding of `text_encoding`; may be a gzip file.
        line_end: the only character that ends a line, for JSON may hold other line separators.

    Raises:
        DataError: it cannot be read; a line that is too long, or holds a NUL.
    """
    rest, number = "", 1
    for block in decode_blocks(path):
        lines = (rest + block).split(line_end)
        rest = lines.pop()
        if "\0" in block:
            _raise_for_nul([*lines, rest], path, number)
        for line in lines:
            yield line + "\n"
        number += len(lines)
        if len(rest) > MAX_CELL_CHARS:
            raise DataError(
                message(
                    "data.line-too-long", "{file}:{line}: a line of more than {most:,} characters",
                    file=path, line=number, most=MAX_CELL_CHARS,
                ),
                TABLE_FORMATS_HINT,
            )  # fmt: skip
    if rest:
        yield rest


def _raise_for_nul(lines: list[str], path: Path, first: int) -> None:
    number = next(number for number, line in enumerate(lines, first) if "\0" in line)
    raise DataError(
        message(
            "data.nul-in-table", "{file}:{line}: holds a NUL, so it is damaged or not a text file",
            file=path, line=number,
        ),
        message("data.nul-in-table.hint", "save it as UTF-8"),
    )  # fmt: skip


def empty_table_error(path: Path) -> DataError:
    """The error for a file without anything in it."""
    return DataError(
        message("data.table-empty", "{file} is empty: it has no rows", file=path),
        message("data.table-empty.hint", "name another table; of an index, a split that has rows"),
    )
