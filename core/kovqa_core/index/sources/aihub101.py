"""AI-Hub data set 101, 생활 및 거주환경 기반 VQA: one answer per question, files that hold everything.

Layout: below folders that say Training or Validation, any number of JSON files, each with

* `images`    `[{image_id, image (file name), category, weather, …}]`
* `question`  `[{question_id, image_id, question, answer, answer_type, …}]`

The keys are those that public loaders of the data set read. Splits are made as for set 104.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from kovqa_core.data.example import Example
from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.data.tables import cell_text
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.index.find_image import find_image
from kovqa_core.index.left_out import (
    ANSWER_EMPTY,
    ID_MISSING,
    IMAGE_MISSING,
    QUESTION_MISSING,
    LeftOutRows,
)
from kovqa_core.index.shards import DatasetShard, SourceOptions, SplitExamples
from kovqa_core.index.sources.aihub import (
    ACCEPTED_OPTIONS,
    MIN_ANSWER_COUNT,
    QUESTION_TYPE_GROUPS,
    SPLIT_METHOD,
    aihub_split,
    find_image_folder,
    is_validation_folder,
    single_answer_labels,
)
from kovqa_core.messages import message

__all__ = [
    "ACCEPTED_OPTIONS",
    "MIN_ANSWER_COUNT",
    "QUESTION_TYPE_GROUPS",
    "SPLIT_METHOD",
    "dataset_shards",
    "find_image_folder",
]
_IMAGE_KEYS = ("image_id", "image")
_QUESTION_KEYS = ("question_id", "image_id", "question", "answer")
_SHARD_BYTES = 32 << 20  # bytes of label files in a shard, for a data set may have one file per image


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """Label files in sorted order, training first, several small ones in a shard.

    Raises:
        DataError: no JSON files; later: one that is broken or lacks a key.
    """
    # By the NFC path: the order must not depend on the Unicode form in which a disk keeps names.
    files = sorted(
        root.rglob("*.json"), key=lambda path: (is_validation_folder(path.parent), to_nfc(str(path)))
    )
    if not files:
        raise DataError(
            message("index.no-aihub101-labels", "no .json file below {root}", root=root),
            message("index.no-aihub101-labels.hint", "unpack AI-Hub's label archives there"),
        )
    return [
        DatasetShard(partial(_read_label_files, group, images), size)
        for group, size in _group_label_files(files)
    ]


def _group_label_files(files: Sequence[Path]) -> Iterator[tuple[list[Path], int]]:
    group: list[Path] = []
    size = 0
    for path in files:
        group.append(path)
        size += path.stat().st_size
        if size >= _SHARD_BYTES:
            yield group, size
            group, size = [], 0
    if group:
        yield group, size


def _read_label_files(files: Sequence[Path], images: Path, left_out: LeftOutRows) -> SplitExamples:
    for path in files:
        is_validation = is_validation_folder(path.parent)
        image_rows = {
            cell_text(row["image_id"]): (find_image(images, cell_text(row["image"])), row)
            for row in iter_json_records(
                path, "images", _IMAGE_KEYS, (*_IMAGE_KEYS, "category"), as_text=True
            )
        }
        for row in iter_json_records(path, "question", _QUESTION_KEYS, _QUESTION_KEYS, as_text=True):
            id, image_id = cell_text(row["question_id"]), cell_text(row["image_id"])
            image, image_row = image_rows.get(image_id, (None, {}))
            question, answer = (
                cell_text(row["question"]).strip(),
                single_answer_labels(cell_text(row["answer"])),
            )
            if not id:
                left_out.add(ID_MISSING, f"{path}: {question or image_id}")
            elif not question:
                left_out.add(QUESTION_MISSING, f"id {id}: {path}")
            elif not answer:
                left_out.add(ANSWER_EMPTY, f"id {id}: {path}")
            elif image is None:
                left_out.add(IMAGE_MISSING, f"id {id}: {cell_text(image_row.get('image')) or image_id}")
            else:
                # The category is the image's; set 104 has it in the folder's name instead.
                question_type = cell_text(image_row.get("category"))
                split = aihub_split(image_id, is_validation=is_validation)
                yield split, Example(id, image, question, answer, question_type)
