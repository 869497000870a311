"""Users' tables: CSV, TSV, JSON, Excel, parquet or webdataset, row by row with their line numbers.

Values stay the text they are written with: `NA`, `None`, `null`, `1.0` and `007` are answers like
any other. Nothing is guessed from a column's contents.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from kovqa_core.data.file_kind import GZIP_MAGIC, PARQUET_MAGIC
from kovqa_core.data.json_values import JsonRecord, JsonValue
from kovqa_core.data.tables.conversations import split_conversations
from kovqa_core.data.tables.csv_rows import read_csv_rows
from kovqa_core.data.tables.embedded_images import ImageNames, SaveImage
from kovqa_core.data.tables.excel import excel_notes, read_excel_rows
from kovqa_core.data.tables.json_rows import read_json_rows
from kovqa_core.data.tables.nested_columns import NestedColumns, lift_nested_columns, nested_names
from kovqa_core.data.tables.other_files import read_head
from kovqa_core.data.tables.parquet import has_embedded_images, read_parquet_rows
from kovqa_core.data.tables.table_format import detect_table_format
from kovqa_core.data.tables.tar_files import is_tar_file
from kovqa_core.data.tables.text_lines import TABLE_FORMATS_HINT
from kovqa_core.data.tables.webdataset import (
    PROBLEM_COLUMN,
    read_webdataset_rows,
    webdataset_notes,
)
from kovqa_core.errors import DataError, no_names
from kovqa_core.files import to_nfc
from kovqa_core.messages import Message, message

# Our name of a column -> the names it is known by. `data/table_columns.py` reads by them.
COLUMN_ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id", "ID", "question_id", "qid"),
    "image": ("image", "img_path", "image_path", "image_id", "이미지", "사진", "그림"),
    "question": ("question", "질문"),
    "answer": ("answer", "answers", "정답", "답"),
    "split": ("split", "분할"),
    "kind": ("kind", "answer_type"),
    "caption": ("caption", "captions", "캡션"),
    "choices": ("choices", "options", "선택지", "보기"),
    "label": ("label",),
    "unknown": ("unknown",),
    "context": ("context",),
    "hint": ("hint",),
}

NO_NESTED_COLUMNS = NestedColumns()
TableRows = Iterator[tuple[int, JsonRecord]]  # (number of the line that a row begins in, column -> value)
MissingColumnHint = str | Callable[[Mapping[str, str]], Message]


def read_table(
    path: Path,
    required: Mapping[str, Sequence[str]] | None = None,
    hint: MissingColumnHint = "",
    *,
    as_text: bool = True,
    save_image: SaveImage | None = None,
    image_names: ImageNames | None = None,
    image_folder: Path | None = None,
    nested: NestedColumns = NO_NESTED_COLUMNS,
) -> TableRows:
    """Rows of a table with the line each begins in; a conversation is a row for each of its questions.

    Args:
        path: in a format that `detect_table_format` knows.
        required: our name of a column -> names of which the table must have one.
        hint: what to do when a column is missing; or a function that says so of our name of it and of
            the column that may be meant ("NAME" when none is similar).
        as_text: numbers of JSON and parquet as text; a CSV has nothing but text.
        save_image: gets the images that are in the table itself, in whose rows their names stand.
        image_names: those of other tables that share a folder.
        image_folder: that paths of images in a tar start from; None: the tar's own.
        nested: columns inside of others, of JSON, parquet and webdatasets.

    Raises:
        DataError: an empty file, or none that is a table; file and line of a row that is broken or lacks
            a column.
    """
    required = required or {}
    if path.is_dir():
        raise DataError(message("data.table-is-folder", "{file} is a folder", file=path), TABLE_FORMATS_HINT)

    def check_header(columns: Sequence[str], place: str) -> None:
        _require_columns(required, columns, place, hint)

    form = detect_table_format(path)
    if form.name == "csv":
        yield from read_csv_rows(path, form, check_header)
        return
    if form.name == "xlsx":
        yield from read_excel_rows(path, check_header)
        return
    if form.name == "parquet":
        images = required.get("image", COLUMN_ALIASES["image"])
        rows: Iterator[tuple[int, JsonValue]] = read_parquet_rows(
            path, images, save_image, image_names, as_text=as_text
        )
    elif form.name == "webdataset":
        named = {name for names in required.values() for name in names}
        rows = read_webdataset_rows(
            path, image_folder, save_image, image_names, required.get("image", COLUMN_ALIASES["image"]), named,
            needs_text=bool(required.keys() - {"image"}), as_text=as_text,
        )  # fmt: skip
    else:
        rows = read_json_rows(path, form, as_text=as_text)
    if nested.names:
        rows = lift_nested_columns(rows, nested)
    for line, row in split_conversations(rows):
        if not isinstance(row, dict):
            raise DataError(
                message("data.row-not-an-object", "{file}:{line}: not a JSON object", file=path, line=line),
                TABLE_FORMATS_HINT,
            )
        if required and PROBLEM_COLUMN not in row:
            _require_columns(required, row, f"{path}:{line}", hint)
        yield line, row


def table_notes(path: Path) -> tuple[Message, ...]:
    """What a reader decided that a table's suffix does not say: its delimiter, its list, its sheet."""
    form = detect_table_format(path)
    if form.name == "webdataset":
        return webdataset_notes(path)
    return excel_notes(path) if form.name == "xlsx" else form.notes


def holds_images(path: Path, image_columns: Sequence[str] = COLUMN_ALIASES["image"]) -> bool:
    """Are the images of a table in the table itself?"""
    # By the first bytes alone: to find the format of a JSON object, all of it is read.
    head = read_head(path)
    if head.startswith(GZIP_MAGIC):  # of a plain tar they are read where they lie
        return is_tar_file(path)
    return head.startswith(PARQUET_MAGIC) and has_embedded_images(path, image_columns)


def has_header(path: Path) -> bool:
    """Do all rows of a table have the same columns, or may each leave some out (JSON)?"""
    return detect_table_format(path).has_header


def cell_text(value: object) -> str:
    """A cell as NFC text; JSON's null and NaN are empty, its true and false keep their spelling.

    A CSV has nothing but text: its `nan` is one like any other.

    Raises:
        TypeError: a list or an object, which is not a text; the caller knows file, line and column.
    """
    # First and without a call where it can be: an index asks for millions of cells.
    if type(value) is str:
        return value if value.isascii() else to_nfc(value)
    # Before str(): Python spells them True and False.
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, list | dict):
        raise TypeError(f"{type(value).__name__}, not a text")
    return to_nfc(str(value))


def raw_text(value: object) -> str:
    """A cell letter by letter: a text as it is, anything else as `cell_text` has it."""
    return value if isinstance(value, str) else cell_text(value)


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
    required: Mapping[str, Sequence[str]], present: Collection[str], place: str, hint: MissingColumnHint
) -> None:
    # Of millions of rows nearly all have them.
    missing = {ours: names for ours, names in required.items() if not any(name in present for name in names)}
    if not missing:
        return
    columns = nested_names(present) if isinstance(present, dict) else list(present)
    unused = set(columns).difference(*required.values())
    similar: dict[str, str] = {}
    for ours, names in missing.items():
        if closest := _closest_column(names, unused.difference(similar.values())):
            similar[ours] = closest
    ours, names = next(iter(missing.items()))
    problem = message(
        "data.no-column", "{place}: no column '{column}'; it has {columns}",
        place=place, column=names[0], columns=", ".join(columns) or no_names(),
    )  # fmt: skip
    if ours in similar:
        problem = message(
            "data.similar-column",
            "{problem}, did you mean '{column}'?",
            problem=problem,
            column=similar[ours],
        )
    # One line to paste, with all that are missing.
    theirs = {name: similar.get(name, "NAME") for name in missing}
    raise DataError(problem, hint if isinstance(hint, str) else hint(theirs))


def _closest_column(names: Sequence[str], unused: Iterable[str]) -> str | None:
    """Of the columns that mean nothing to us, the one spelled most like one of the names."""
    lower = {column.lower(): column for column in sorted(unused)}
    matches = (difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5) for name in names)
    return next((lower[match[0]] for match in matches if match), None)
