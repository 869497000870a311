"""Any CSV, TSV, JSON-lines or JSON table with a picture and a question (or a caption) a row.

`--root` is the file. Columns go by our names (id, image, question, answer, split, kind, caption) or
the ones in `data.tables.NAMES`; `--column ours=theirs` says otherwise. A picture is a path below the
table's folder, or below `--images`. JSON may give a list of answers, one an annotator; a CSV cell is
one answer. Without a column `id` the line number is the id; without `split`, pictures are divided.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from kovqa_core.data.answers import soft_labels
from kovqa_core.data.example import Example
from kovqa_core.data.tables import COLUMN_ALIASES, cell_text, check_unique_id, read_table
from kovqa_core.errors import DataError, unknown_name_error
from kovqa_core.index.find_image import find_image_any_suffix
from kovqa_core.index.hash_split import assign_split
from kovqa_core.index.shards import DatasetShard, LeftOutRows, SourceOptions, SplitExamples
from kovqa_core.messages import message

ACCEPTED_OPTIONS = ("columns",)
SPLIT_METHOD = "without a column 'split': by picture, SHA-256 of 'table/<image>', 90 % train, 10 % val"
_TABLE_FRACTIONS = {"train": 0.9, "val": 0.1}
_SPLIT_ALIASES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test",
}  # fmt: skip


def find_image_folder(root: Path) -> Path:
    """Where the pictures lie when nothing else is said."""
    return root.parent


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """The whole table; reading it raises DataError with file and line.

    Raises:
        SettingsError: a column of ours that there is none of.
        DataError: `root` is no file.
    """
    if not root.is_file():
        raise DataError(f"{root} is no file", "--root names the table itself: --root questions.csv")
    for ours in options.columns:
        if ours not in COLUMN_ALIASES:
            raise unknown_name_error(
                message("index.unknown-column", "unknown column '{column}'", column=ours),
                ours,
                COLUMN_ALIASES,
                "--column question=질문",
            )
    return [DatasetShard(partial(_read_table_rows, root, images, dict(options.columns)), root.stat().st_size)]


def _read_table_rows(
    file: Path, images: Path, columns: dict[str, str], left_out: LeftOutRows
) -> SplitExamples:
    known = {ours: (columns[ours],) if ours in columns else names for ours, names in COLUMN_ALIASES.items()}
    seen: dict[str, int] = {}
    for line, row in read_table(
        file, _wanted_columns(file, known, columns), "say which it is: --column {ours}={theirs}"
    ):
        where = f"{file}:{line}"
        cells = {ours: _first_cell(row, names) for ours, names in known.items()}
        id, name, question = (_one_text(cells[ours], ours, where) for ours in ("id", "image", "question"))
        check_unique_id(id or str(line), line, seen, file)
        image = find_image_any_suffix(images, name)
        split = _row_split(_one_text(cells["split"], "split", where), name, where)
        answers = soft_labels(_cell_texts(cells["answer"], "answer", where))
        captions = [each.strip() for each in _cell_texts(cells["caption"], "caption", where) if each.strip()]
        if not question and not captions:
            left_out.add("question missing", where)
        elif not answers and not captions and split != "test":
            left_out.add("answer empty", where)
        elif image is None:
            left_out.add("picture missing", f"{where}: {name}")
        else:
            kind = _one_text(cells["kind"], "kind", where)
            yield split, Example(id or str(line), image, question, answers, kind, captions)


def _wanted_columns(
    file: Path, known: dict[str, tuple[str, ...]], columns: dict[str, str]
) -> dict[str, tuple[str, ...]]:
    """Columns there must be. Records of JSON may lack what does not concern them; a CSV's header not."""
    named = columns if file.suffix.lower() in (".csv", ".tsv") else ()
    return {
        "image": known["image"],
        "question": known["question"] + known["caption"],
        "answer": known["answer"] + known["caption"] + known["split"],  # test rows need none
        **{ours: known[ours] for ours in named},
    }


def _first_cell(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if name in row), None)


def _cell_texts(value: Any, ours: str, where: str) -> list[str]:
    return (
        [_one_text(each, ours, where) for each in value]
        if isinstance(value, list)
        else [_one_text(value, ours, where)]
    )


def _one_text(value: Any, ours: str, where: str) -> str:
    if isinstance(value, list | dict):
        raise DataError(f"{where}: {ours} is a {type(value).__name__}, not a text", "give one text a cell")
    return cell_text(value) if ours in ("answer", "caption", "image") else cell_text(value).strip()


def _row_split(value: str, name: str, where: str) -> str:
    if not value:
        return assign_split("table", name, _TABLE_FRACTIONS)
    if value.lower() not in _SPLIT_ALIASES:
        raise DataError(f"{where}: unknown split '{value}'", f"known: {', '.join(_SPLIT_ALIASES)}")
    return _SPLIT_ALIASES[value.lower()]
