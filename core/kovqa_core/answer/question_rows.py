"""Rows to answer: of a table people bring, or the pictures of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovqa_core.data import tables
from kovqa_core.data.decoding import DecodingOptions, parse_choices
from kovqa_core.data.example import Example
from kovqa_core.data.question_types import choose_question_types
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.index.reader import table_image_folder

_FOLDER_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class QuestionRow:
    """One row to answer, its kind of question, and its columns that are none of ours."""

    example: Example
    kind: str
    carried: dict[str, Any]


_QUESTION_COLUMNS = {ours: tables.COLUMN_ALIASES[ours] for ours in ("id", "image", "question")}


def read_question_table(path: Path, task: str = "vqa", choices: bool = False) -> list[QuestionRow]:
    """Rows of an index split, a JSON-lines file, a JSON list, a CSV or a TSV.

    Args:
        path: the table.
        task: a "caption" needs no question.
        choices: does every row list the answers it offers?

    Raises:
        DataError: names file, line and what is missing or double.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder", "name one of its .jsonl files")
    needed = {ours: known for ours, known in _QUESTION_COLUMNS.items() if task == "vqa" or ours != "question"}
    columns = f"columns: {', '.join(needed)}"
    rows: list[QuestionRow] = []
    seen: dict[str, int] = {}
    for number, record in tables.read_table(path, as_text=False):
        names = {
            ours: next((n for n in known if record.get(n) not in (None, "")), None)
            for ours, known in needed.items()
        }
        lacking = [ours for ours, found in names.items() if found is None]
        if lacking:
            raise DataError(f"{path}:{number}: no {' and no '.join(lacking)}", columns)
        found = {ours: str(record[str(name)]) for ours, name in names.items()}
        tables.check_unique_id(found["id"], number, seen, path)
        offered = parse_choices(record, f"{path}:{number}, id {found['id']}") if choices else ()
        carried = {k: v for k, v in record.items() if k not in (*names.values(), "answers", "captions")}
        question = to_nfc(found.get("question", ""))
        kind = next((str(record[name]) for name in tables.COLUMN_ALIASES["kind"] if record.get(name)), "")
        example = Example(found["id"], found["image"], question, choices=offered)
        rows.append(QuestionRow(example, to_nfc(kind), carried))
    if not rows:
        raise DataError(f"{path} has no rows", columns)
    return rows


def rows_from_images(folder: Path) -> list[QuestionRow]:
    """Every picture below a folder, in sorted order; its path there is its id.

    Raises:
        DataError: there is none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _FOLDER_IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise DataError(f"no picture in {folder}", f"pictures end in {', '.join(_FOLDER_IMAGE_SUFFIXES)}")
    names = [path.relative_to(folder).as_posix() for path in found]
    return [QuestionRow(Example(to_nfc(name), name, ""), "", {}) for name in names]


def select_question_rows(
    table: Path, task: str, kinds: Sequence[str], decoding: DecodingOptions
) -> list[QuestionRow]:
    """The rows of a table, or of a folder of pictures, that are of these kinds.

    Raises:
        DataError: a row that cannot be asked; see `read_table`.
        SettingsError: a kind the table does not have.
    """
    if table.is_dir() and task == "caption":
        rows = rows_from_images(table)
    else:
        rows = read_question_table(table, task, decoding.choices)
    chosen = choose_question_types(kinds, [row.kind for row in rows])
    return [row for row in rows if row.kind in chosen]


def question_image_folder(table: Path, images: Path | None) -> Path:
    """Where picture paths start."""
    return images or (table if table.is_dir() else table_image_folder(table))
