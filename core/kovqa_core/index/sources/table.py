"""Any CSV, TSV, JSON, Excel, parquet or webdataset table with an image and a question (or a caption) per row.

`--root` is the file, or a folder of parquet files or tars, whose names (`train-00000-of-00002.parquet`, also of a single
file; `train-000000.tar`) or folders (`default/train/0000.parquet`) say the split.
Images that lie in a parquet file or a `.tar.gz` become files of the index; of a plain tar they stay where they are.
A conversation (LLaVA's) is a row for each of its questions. Columns have our names (id, image, question, answer,
split, kind, caption, choices, context, hint, unknown, label; `data/choice_columns.py` says what they may hold)
or those in `data.tables.COLUMN_ALIASES`; `--column ours=theirs` names others; all that are none of ours are kept
and handed on. An image is a path below the table's folder, or below `--images`, or a bare name there
(`index/find_image.py`), or an absolute path: such paths are stored from their common folder, which becomes the index's
image folder; `..` needs `--allow-outside`. JSON may have a list of answers, one per annotator: texts, or records with a text
`answer` (VizWiz's `train.json` and `val.json`); a CSV cell is one answer. Without a column `id` the line number
is the id (`1-2` for the second row of a line); without `split`, a hash of the image's name decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from kovqa_core.data.answers import raw_annotations, soft_labels
from kovqa_core.data.choice_columns import equal_choices
from kovqa_core.data.example import Example
from kovqa_core.data.folder_walk import walk_files
from kovqa_core.data.image_names import outside_image_error, path_below
from kovqa_core.data.table_columns import TableRecord, known_columns, read_table_records
from kovqa_core.data.tables import COLUMN_ALIASES, holds_images, table_notes
from kovqa_core.data.tables.embedded_images import ImageNames, image_writer
from kovqa_core.data.tables.tar_files import TAR_SUFFIXES
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.index.find_image import OutsideNames, find_table_image, row_with_problem
from kovqa_core.index.folder_names import split_of_name
from kovqa_core.index.hash_split import assign_split
from kovqa_core.index.left_out import (
    ANSWER_EMPTY,
    CHOICES_UNUSABLE,
    IMAGE_NOT_NAMED,
    QUESTION_MISSING,
    SAMPLE_INCOMPLETE,
    LeftOutRows,
)
from kovqa_core.index.shards import DatasetShard, SourceOptions, SplitExamples
from kovqa_core.messages import Message, join_messages, message

SPLIT_METHOD = "without a column 'split': by picture, SHA-256 of 'table/<image>', 90 % train, 10 % val"
MIN_ANSWER_COUNT = None
ACCEPTED_OPTIONS = ("columns", "allow_outside")
QUESTION_TYPE_GROUPS: Mapping[str, Sequence[str]] = {}
_TABLE_FRACTIONS = {"train": 0.9, "val": 0.1}
_SPLIT_ALIASES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test",
    "학습": "train", "학습용": "train", "훈련": "train", "훈련용": "train", "검증": "val", "검증용": "val",
    "시험": "test", "시험용": "test", "평가": "test", "평가용": "test", "테스트": "test", "테스트용": "test",
}  # fmt: skip
# Columns of ours in every row. Those that say something of choices alone are anything where a row has none.
_COLUMNS = tuple(name for name in COLUMN_ALIASES if name not in ("label", "unknown"))
_HUB_FILE_NAME = re.compile(r"(.+)-\d{5}-of-\d{5}")  # train-00000-of-00002, as Hugging Face divides a split


def find_image_folder(root: Path) -> Path:
    """The folder of the images, unless the user names another."""
    return root.parent


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """The whole table, or the parquet files of a folder; reading it raises DataError with file and line.

    Raises:
        SettingsError: `options.columns` has a key that is not a column of ours.
        DataError: `root` is not a file, nor a folder of parquet files or tars; or something else than a table.
    """
    shards = _table_files(root)
    if not shards:
        raise DataError(
            message("index.table-not-a-file", "{root} is not a file", root=root),
            message("index.table-not-a-file.hint", "--root names the table itself: --root questions.csv"),
        )
    columns, image_columns = dict(options.columns), known_columns(options.columns)["image"]
    files = [shard.file for shard in shards]
    size, notes = sum(file.stat().st_size for file in files), [n for file in files for n in table_notes(file)]
    # One shard, also of several files: they share the names of their images.
    read = partial(_read_tables, shards, images, columns, "all" if options.allow_outside else "absolute")
    read_images = read if any(holds_images(file, image_columns) for file in files) else None
    return [DatasetShard(read, size, read_images, tuple(dict.fromkeys(notes)))]


@dataclass(frozen=True)
class _TableFile:
    """One of the files of a table: what its name says of its rows."""

    file: Path
    split: str = ""
    id_prefix: str = ""


def _table_files(root: Path) -> list[_TableFile]:
    """The table itself, or the parquet files of a folder, else its tars, whose names or folders say their splits."""
    if not root.is_dir():
        # Another table's name may be `test.csv` for any reason; this form has but one.
        hub_name = _HUB_FILE_NAME.fullmatch(root.stem) if root.suffix == ".parquet" else None
        return [_TableFile(root, _split_in_name(hub_name[1]) if hub_name else "")]
    # Hugging Face's folders hold copies in hidden ones (`.cache`).
    names = sorted(name for name in walk_files(root) if name.lower().endswith((".parquet", *TAR_SUFFIXES)))
    parquet = [name for name in names if name.endswith(".parquet")]
    return [
        _TableFile(root / name, _split_in_path(Path(name)), f"{_stem_of_table(name)}/")
        for name in parquet or names
    ]


def _stem_of_table(name: str) -> str:
    """A file's name without `.parquet`, `.tar` or `.tar.gz`."""
    stem = PurePosixPath(name).stem
    return stem.removesuffix(".tar")


def _split_in_path(file: Path) -> str:
    """The split that a file's own name says, else the nearest of its folders: `default/train/0000.parquet`."""
    names = (_stem_of_table(file.name).split("-")[0], *reversed(file.parts[:-1]))
    return next(filter(None, map(_split_in_name, names)), "")


def _split_in_name(name: str) -> str:
    return _SPLIT_ALIASES.get(to_nfc(name).lower(), "") or split_of_name(name) or ""


def _read_tables(
    shards: Sequence[_TableFile],
    images: Path,
    columns: dict[str, str],
    outside: OutsideNames,
    left_out: LeftOutRows,
    own_images: Path | None = None,
) -> SplitExamples:
    """The rows of tables; images in the tables themselves are written into `own_images`."""
    known, image_names = known_columns(columns), ImageNames()
    required = {
        "image": known["image"],
        "question": (*known["question"], *known["caption"]),
    }
    answers = {
        "answer": (*known["answer"], *known["caption"], *known["split"], *known["label"])
    }  # test rows need none
    for shard in shards:
        rows = read_table_records(
            shard.file,
            known,
            required if shard.split == "test" else required | answers,
            columns,
            save_image=image_writer(own_images) if own_images else None,
            image_names=image_names,
            image_folder=images,
        )
        yield from _read_table_rows(shard, rows, own_images or images, outside, left_out)


def _read_table_rows(
    shard: _TableFile,
    rows: Iterable[TableRecord],
    images: Path,
    outside: OutsideNames,
    left_out: LeftOutRows,
) -> SplitExamples:
    for row in rows:
        if row.problem:
            left_out.add(SAMPLE_INCOMPLETE, join_messages(": ", [row.place, row.problem]))
            continue
        name, question = row.text("image"), row.text("question")
        if not name.strip():
            id = row.text("id")
            left_out.add(IMAGE_NOT_NAMED, f"{row.place}: id {id}" if id else row.place)
            continue
        kind, own_split = row.text("kind"), row.text("split")
        image = find_table_image(shard.file, images, name, kind, own_split, outside=outside)
        if image.is_outside:
            raise outside_image_error(row.place, name, images, _allow_hint())
        split = _row_split(own_split or shard.split, _split_key(name, image.path, images), row.place)
        choices, problem = _row_choices(row)
        annotations = choices.answers if choices.texts else row.raw_texts("answer")
        answers = soft_labels(annotations)
        captions = [text.strip() for text in row.texts("caption") if text.strip()]
        if not question and not captions:
            left_out.add(QUESTION_MISSING, row.place)
        elif problem:
            left_out.add(CHOICES_UNUSABLE, problem)
        # Test rows may have no answers: predictions for them are what is wanted.
        elif not answers and not captions and split != "test":
            left_out.add(ANSWER_EMPTY, row.place)
        elif image.path is None:
            left_out.add(image.reason, row_with_problem(row.place, image))
        else:
            id = row.text("id") or f"{shard.id_prefix}{row.own_id}"
            yield split, Example(
                id, image.path, question, answers, kind, captions,
                choices=choices.texts, unknown=choices.unknown, context=row.context,
                annotations=raw_annotations(annotations),
                columns=row.other_columns(choices.columns, dropped=row.choice_columns if choices.texts else ()),
            )  # fmt: skip


def _allow_hint() -> Message:
    return message(
        "index.allow-outside.hint",
        "if it is meant: --allow-outside; or name the folder that all images lie below: --images DIR",
    )


def _split_key(name: str, path: str | None, images: Path) -> str:
    """What decides the split of a row without one."""
    # An absolute path as it is written, wherever the image folder is: the split must not change with that.
    if path is not None and path_below(images, name) == path:
        return to_nfc(name)
    # By the file, not by what the row calls it: `b` and `b.jpg` in one table are one image, in one split.
    return to_nfc(path or name)


@dataclass(frozen=True)
class _RowChoices:
    """The answers that a row offers, the true ones, the one that means "unknown", and our columns that it uses."""

    texts: tuple[str, ...] = ()
    answers: Sequence[str] = ()
    unknown: str = ""
    columns: tuple[str, ...] = _COLUMNS


_NO_CHOICES = _RowChoices()


def _row_choices(row: TableRecord) -> tuple[_RowChoices, str]:
    """The answers that a row offers, and what is wrong with them.

    Raises:
        DataError: see `TableRecord.require_counted_from_one`.
    """
    try:
        texts = row.choices()
    except DataError as error:
        return _NO_CHOICES, error.message
    if not texts:
        return _NO_CHOICES, ""
    row.require_counted_from_one(texts)
    try:
        if equal_choices(texts):
            return _NO_CHOICES, message(
                "index.equal-choices", "{place}: two choices are one answer: {choices}",
                place=row.place, choices=", ".join(texts),
            )  # fmt: skip
        columns = (*_COLUMNS, "unknown", *(["label"] if row.has_label else []))
        return _RowChoices(texts, row.chosen_answers(texts), row.unknown(texts), columns), ""
    except DataError as error:
        return _NO_CHOICES, error.message


def _row_split(value: str, name: str, place: str) -> str:
    """The split that a row names, or that its image's name decides."""
    if not value:
        return assign_split("table", name, _TABLE_FRACTIONS)
    if value.lower() not in _SPLIT_ALIASES:
        raise DataError(
            message("index.unknown-split", "{place}: unknown split '{split}'", place=place, split=value),
            message("index.unknown-split.hint", "known: {splits}", splits=", ".join(_SPLIT_ALIASES)),
        )
    return _SPLIT_ALIASES[value.lower()]
