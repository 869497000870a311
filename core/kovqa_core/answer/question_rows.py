"""Rows to answer: of a table people bring, or the images of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kovqa_core.data import tables
from kovqa_core.data.decoding import DecodingOptions, parse_choices
from kovqa_core.data.example import Example
from kovqa_core.data.question_types import choose_question_types
from kovqa_core.data.row_ids import TableRow, row_identity, unique_row_ids
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.index.reader import table_image_folder
from kovqa_core.messages import Message, message

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_QUESTION_COLUMNS = {column: tables.COLUMN_ALIASES[column] for column in ("id", "image", "question")}
_ANSWER_COLUMNS = ("answers", "captions")  # of an index: the true ones, not to be handed on


@dataclass(frozen=True)
class QuestionRow:
    """One row to answer.

    Attributes:
        example: what the model sees.
        question_type: the table's column kind; "" where it has none.
        extra_columns: its columns that are none of ours, handed on to the predictions file.
    """

    example: Example
    question_type: str
    extra_columns: dict[str, object]


def read_question_table(path: Path, task: str = "vqa", *, choices: bool = False) -> list[QuestionRow]:
    """Rows of an index split, a JSON-lines file, a JSON list, a CSV or a TSV.

    Args:
        path: the table.
        task: a "caption" needs no question.
        choices: does every row list the answers it offers?

    Raises:
        DataError: names file, line and what is missing or there twice.
    """
    if path.is_dir():
        raise DataError(
            message("answer.table-is-a-folder", "{path} is a folder", path=path),
            message("answer.table-is-a-folder.hint", "name one of its .jsonl files"),
        )
    columns = {
        column: aliases
        for column, aliases in _QUESTION_COLUMNS.items()
        if task == "vqa" or column != "question"
    }
    rows: list[QuestionRow] = []
    lines: list[int] = []
    for number, record in tables.read_table(path, as_text=False):
        rows.append(_parse_question_row(record, columns, f"{path}:{number}", choices=choices))
        lines.append(number)
    if not rows:
        raise DataError(
            message("answer.empty-table", "{path} has no rows", path=path), _columns_hint(columns)
        )
    return tell_rows_apart(rows, lines, path)


def tell_rows_apart(rows: Sequence[QuestionRow], lines: Sequence[int], path: Path) -> list[QuestionRow]:
    """Rows that have ids of their own, as the index of the same table has them (`data/row_ids.py`).

    Args:
        rows: of a table, with the images as they are found.
        lines: number of each row's line.
        path: the table, for errors.

    Raises:
        DataError: a row is there twice; names both lines.
    """
    ids = unique_row_ids([TableRow.of_example(row.example) for row in rows])
    if None in ids:
        twice = ids.index(None)
        identities = [row_identity(TableRow.of_example(row.example)) for row in rows[: twice + 1]]
        raise DataError(
            message(
                "answer.row-twice", "{path}:{line}: the question with id {id} was already in line {first}",
                path=path, line=lines[twice], id=rows[twice].example.id, first=lines[identities.index(identities[twice])],
            ),
            message("answer.row-twice.hint", "remove one of them"),
        )  # fmt: skip
    return [
        row if id is None or id == row.example.id else replace(row, example=replace(row.example, id=id))
        for row, id in zip(rows, ids, strict=True)
    ]


def _parse_question_row(
    record: Mapping[str, object], columns: Mapping[str, Sequence[str]], place: str, *, choices: bool
) -> QuestionRow:
    """One record of a table as a row.

    Args:
        record: by the table's own column names.
        columns: our column -> names it may have.
        place: FILE:LINE, for errors.
        choices: does it list the answers it offers?

    Raises:
        DataError: a column has no value, or the choices are unusable.
    """
    names = _column_names(record, columns)
    missing = [column for column in columns if column not in names]
    if missing:
        raise DataError(
            message(
                "answer.missing-columns",
                "{place}: no {missing}",
                place=place,
                missing=" and no ".join(missing),
            ),
            _columns_hint(columns),
        )
    values = {column: tables.record_text(record, name, place) for column, name in names.items()}
    question = to_nfc(values.get("question", ""))
    offered = parse_choices(record, f"{place}, id {values['id']}") if choices else ()
    return QuestionRow(
        Example(values["id"], values["image"], question, choices=offered),
        _first_text(record, tables.COLUMN_ALIASES["kind"], place),
        {k: v for k, v in record.items() if k not in (*names.values(), *_ANSWER_COLUMNS)},
    )


def _columns_hint(columns: Mapping[str, Sequence[str]]) -> Message:
    return message("answer.columns.hint", "columns: {columns}", columns=", ".join(columns))


def _column_names(record: Mapping[str, object], columns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Our column -> what the record calls it, for those it has a value for."""
    return {
        column: name
        for column, aliases in columns.items()
        if (name := next((n for n in aliases if not tables.is_empty_cell(record.get(n))), None)) is not None
    }


def _first_text(record: Mapping[str, object], names: Sequence[str], place: str) -> str:
    return next(filter(None, (tables.record_text(record, name, place) for name in names)), "")


def rows_from_images(folder: Path) -> list[QuestionRow]:
    """Every image below a folder, in sorted order; its path there is its id.

    Raises:
        DataError: there is none.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _IMAGE_SUFFIXES and p.is_file())
    if not paths:
        raise DataError(
            message("answer.no-images", "no image in {folder}", folder=folder),
            message(
                "answer.no-images.hint",
                "names of images end in {suffixes}",
                suffixes=", ".join(_IMAGE_SUFFIXES),
            ),
        )
    names = [path.relative_to(folder).as_posix() for path in paths]
    return [QuestionRow(Example(to_nfc(name), name, ""), "", {}) for name in names]


def select_question_rows(
    table: Path, task: str, question_types: Sequence[str], decoding: DecodingOptions
) -> list[QuestionRow]:
    """The rows of a table, or of a folder of images, that are of these question types.

    Raises:
        DataError: a row that cannot be answered; see `read_question_table`.
        SettingsError: a question type the table does not have.
    """
    if table.is_dir() and task == "caption":
        rows = rows_from_images(table)
    else:
        rows = read_question_table(table, task, choices=decoding.choices)
    chosen = choose_question_types(question_types, [row.question_type for row in rows])
    return [row for row in rows if row.question_type in chosen]


def question_image_folder(table: Path, images: Path | None) -> Path:
    """The folder that image paths start from."""
    return images or (table if table.is_dir() else table_image_folder(table))
