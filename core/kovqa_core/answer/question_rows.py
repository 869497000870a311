"""Rows to answer, of a table people bring."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kovqa_core.answer.dataset_files import nested_file_hint, require_named_images
from kovqa_core.data.decoding import DecodingOptions
from kovqa_core.data.example import Example
from kovqa_core.data.image_names import is_inside, leads_outside, outside_image_error
from kovqa_core.data.question_types import choose_question_types
from kovqa_core.data.row_ids import TableRow, unique_row_ids
from kovqa_core.data.table_columns import TableRecord, json_value, known_columns, read_table_records
from kovqa_core.data.tables import table_notes
from kovqa_core.errors import DataError
from kovqa_core.index.find_image import FoundImage, clear_listings, find_table_image
from kovqa_core.index.reader import is_index_file, table_image_folder
from kovqa_core.messages import Message, message
from kovqa_core.messages.readable_name import readable_name

_ANSWER_COLUMNS = ("answers", "captions")  # of an index: the true ones, not to be handed on
_INDEX_LINE_COLUMNS = (*_ANSWER_COLUMNS, "annotations", "columns")  # an index line alone has the last two


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """One row to answer.

    Attributes:
        example: what the model sees.
        question_type: the table's column kind; "" where it has none.
        extra_columns: its columns that are none of ours, handed on to the predictions file.
        all_columns: all of them in the table's order, by the table's names but for `id`; for predictions in a
            table's form.
        fault: why it cannot be asked; "" where it can.
        is_id_qualified: other rows of the table have its id, and its image tells it from them.
    """

    example: Example
    question_type: str
    extra_columns: Mapping[str, object]
    all_columns: Mapping[str, object] = field(default_factory=dict)
    fault: str = ""
    is_id_qualified: bool = False


def read_question_table(
    path: Path,
    task: str = "vqa",
    *,
    choices: bool = False,
    columns: Mapping[str, str] | None = None,
    images: Path | None = None,
    on_duplicate: Callable[[str], object] = str,
    allow_outside: bool = False,
) -> list[QuestionRow]:
    """Rows of an index split, or of any table that `kovqa index table` reads, by the same columns, ids and images.

    Args:
        path: the table.
        task: a "caption" needs no question.
        choices: does every row list the answers it offers?
        columns: our name of a column -> the table's.
        images: the folder that image paths start from; None: beside the table.
        on_duplicate: see `tell_rows_apart`.
        allow_outside: may images lie outside that folder?

    Raises:
        DataError: names file, line and what is missing; an image outside the folder.
        SettingsError: `columns` names a column that is not one of ours.
    """
    if path.is_dir():
        raise DataError(
            message("answer.table-is-a-folder", "{path} is a folder", path=path),
            message("answer.table-is-a-folder.hint", "name one of its files, such as a .jsonl or .parquet"),
        )
    columns = columns or {}
    known = known_columns(columns)
    needed = ("image", "question") if task == "vqa" else ("image",)
    rows: list[QuestionRow] = []
    lines: list[int] = []
    try:
        wanted = {name: known[name] for name in needed}
        for row in read_table_records(path, known, wanted, columns, image_folder=images):
            rows.append(_parse_question_row(row, needed, choices=choices))
            lines.append(row.line)
    except DataError as error:
        raise DataError(error.message, nested_file_hint(path) or error.hint) from None
    if not rows:
        raise DataError(
            message("answer.empty-table", "{path} has no rows", path=path), _columns_hint(("id", *needed))
        )
    rows = find_row_images(rows, path, images, lines, allow_outside=allow_outside)
    if not is_index_file(path):
        require_named_images(path, [row.example for row in rows], images or path.parent)
    return tell_rows_apart(rows, lines, path, on_duplicate)


def find_row_images(
    rows: Sequence[QuestionRow],
    table: Path,
    images: Path | None,
    lines: Sequence[int],
    *,
    allow_outside: bool = False,
) -> list[QuestionRow]:
    """The rows of a table with their images' paths as this disk spells them.

    A row whose image is one of several gets a fault; one whose image is not there stays as it is. Lines of an
    index name the very files.

    Args:
        rows: of the table.
        table: the file.
        images: the folder that image paths start from; None: beside the table, or as its index says.
        lines: number of each row's line.
        allow_outside: may they lead out of that folder?

    Raises:
        DataError: an image lies outside; names the first.
    """
    if is_index_file(table):
        found_rows = list(rows)
        outside = [] if allow_outside else [row for row in rows if leads_outside(row.example.image)]
        # Its image folder is looked for only where there is such a name: rows are read without it, too.
        folder = question_image_folder(table, images) if outside else table.parent
        outside = [row for row in outside if not is_inside(folder, row.example.image)]
    else:
        clear_listings()
        folder = images or table.parent
        found = [_find_row_image(row, table, folder, allow_outside=allow_outside) for row in rows]
        outside = [
            row for row, image in zip(rows, found, strict=True) if image is not None and image.is_outside
        ]
        found_rows = [_with_image(row, image) for row, image in zip(rows, found, strict=True)]
    if outside:
        line = next(line for row, line in zip(rows, lines, strict=True) if row is outside[0])
        raise outside_image_error(
            f"{table}:{line}", outside[0].example.image, folder, _allow_outside_hint(), len(outside) - 1
        )
    return found_rows


def _allow_outside_hint() -> Message:
    return message(
        "answer.allow-outside.hint",
        "name the folder that all images lie below: --images DIR; or if you know the table: --allow-outside",
    )


def _find_row_image(row: QuestionRow, table: Path, images: Path, *, allow_outside: bool) -> FoundImage | None:
    if row.fault:
        return None
    if row.example.image.startswith(f"{os.path.abspath(table)}/"):  # noqa: PTH100
        return FoundImage(row.example.image)  # it lies in the table, which the user has named
    split = row.extra_columns.get("split")
    return find_table_image(
        table, images, row.example.image, row.question_type, split if isinstance(split, str) else "",
        outside="all" if allow_outside else "none",
    )  # fmt: skip


def _with_image(row: QuestionRow, found: FoundImage | None) -> QuestionRow:
    if found is None or found.path == row.example.image:
        return row
    if found.path is not None:
        return replace(row, example=replace(row.example, image=found.path))
    return replace(row, fault=_image_fault(found)) if found.others else row


def _image_fault(found: FoundImage) -> Message:
    others = ", ".join(map(readable_name, found.others[:3])) + (" …" if len(found.others) > 3 else "")
    if found.is_ambiguous:
        return message(
            "answer.several-images", "image {name}: several files have this name ({files}): write its whole path",
            name=found.name, files=others,
        )  # fmt: skip
    return message(
        "answer.image-elsewhere", "image {name} is missing (in another folder: {files})",
        name=found.name, files=others,
    )  # fmt: skip


def tell_rows_apart(
    rows: Sequence[QuestionRow],
    lines: Sequence[int],
    path: Path,
    on_duplicate: Callable[[str], object] = str,
) -> list[QuestionRow]:
    """Rows that have ids of their own, as the index of the same table has them (`data/row_ids.py`).

    Args:
        rows: of a table, with the images as they are found.
        lines: number of each row's line.
        path: the table, for `on_duplicate`.
        on_duplicate: called with id, file and line of every row that asks again what an earlier row of its id asks;
            such rows are left out, as they are in an index.
    """
    if len({row.example.id for row in rows}) == len(rows):  # nearly always: nothing else is to be compared
        return list(rows)
    ids = unique_row_ids([TableRow.of_example(row.example) for row in rows])
    kept = []
    for row, line, id in zip(rows, lines, ids, strict=True):
        if id is None:
            on_duplicate(f"{row.example.id} ({path}:{line})")
        else:
            unchanged = id == row.example.id
            kept.append(
                row if unchanged else replace(row, example=replace(row.example, id=id), is_id_qualified=True)
            )
    return kept


def notes_of(table: Path, rows: Sequence[QuestionRow]) -> list[Message]:
    """What was decided about a table that it does not say itself: how it is read, and ids that repeat."""
    notes = list(table_notes(table)) if table.is_file() else []
    if qualified := [row.example.id for row in rows if row.is_id_qualified]:
        notes.append(
            message(
                "answer.ids-qualified",
                "{rows:,} rows share their id with another image or question: their images tell them apart "
                "(first: {id})",
                rows=len(qualified), id=qualified[0],
            )
        )  # fmt: skip
    return notes


def _parse_question_row(row: TableRecord, needed: Sequence[str], *, choices: bool) -> QuestionRow:
    """One row of a table as a row to answer.

    Args:
        row: by our columns.
        needed: columns that must say something.
        choices: does it list the answers it offers?

    Raises:
        DataError: the choices are unusable, or a cell is not a text.
    """
    # Not in NFC: an index has the path as the disk spells it.
    image = path if isinstance(path := row.cell("image"), str) else row.text("image")
    question, id = row.text("question") if "question" in needed else "", row.id
    offered, unknown = _offered_choices(row, required=choices)
    example = Example(id, image, question, choices=offered, unknown=unknown, context=row.context)
    texts = {"image": image, "question": question}
    missing = next((ours for ours in needed if not texts[ours].strip()), None)
    fault = (
        message("answer.empty-cell", "{place}: no {column}", place=row.place, column=missing)
        if missing
        else ""
    )
    if row.problem:
        fault = message(
            "answer.sample-incomplete", "{place}: {problem}", place=row.place, problem=row.problem
        )
    handed_on, theirs = _handed_on(row), row.names.get("id", "id")
    # By our name of it, so that predictions are found by it, and without blanks around it; first where there is none.
    all_columns = {"id" if name == theirs else name: value for name, value in handed_on.items()}
    if theirs in handed_on:
        all_columns["id"] = id
    else:
        all_columns = {"id": id, **all_columns}
    ours = {row.names[name] for name in ("id", "image", *needed) if name in row.names}
    extra_columns = {name: value for name, value in handed_on.items() if name not in ours}
    return QuestionRow(example, row.text("kind"), extra_columns, all_columns, fault)


def _offered_choices(row: TableRecord, *, required: bool) -> tuple[tuple[str, ...], str]:
    """The answers that a question offers, and the one of them that means "unknown"."""
    try:
        choices = row.choices(required=required)
        return choices, row.unknown(choices)
    except DataError:
        if required:
            raise
        return (), ""  # nobody asked for them: columns of these names may be anything


def _handed_on(row: TableRecord) -> dict[str, object]:
    """The columns of a row but for the true answers; of an index line also those of its table."""
    is_index_line = isinstance(row.record.get("answers"), dict)
    of_table = json_value(row.record.get("columns")) if is_index_line else None
    kept = row.other_columns((), dropped=_INDEX_LINE_COLUMNS if is_index_line else _ANSWER_COLUMNS)
    return {**kept, **of_table} if isinstance(of_table, dict) else kept


def _columns_hint(columns: Sequence[str]) -> Message:
    return message("answer.columns.hint", "columns: {columns}", columns=", ".join(columns))


def select_question_rows(
    table: Path,
    task: str,
    question_types: Sequence[str],
    decoding: DecodingOptions,
    columns: Mapping[str, str] | None = None,
    *,
    images: Path | None = None,
    on_duplicate: Callable[[str], object] = str,
    allow_outside: bool = False,
) -> list[QuestionRow]:
    """The rows of a table that are of these question types; arguments as in `read_question_table`.

    Raises:
        DataError: a table that cannot be read; see `read_question_table`.
        SettingsError: a question type the table does not have.
    """
    rows = read_question_table(
        table,
        task,
        choices=decoding.choices,
        columns=columns,
        images=images,
        on_duplicate=on_duplicate,
        allow_outside=allow_outside,
    )
    chosen = choose_question_types(question_types, [row.question_type for row in rows])
    return [row for row in rows if row.question_type in chosen]


def question_image_folder(table: Path, images: Path | None) -> Path:
    """The folder that image paths start from."""
    return images or (table if table.is_dir() else table_image_folder(table))
