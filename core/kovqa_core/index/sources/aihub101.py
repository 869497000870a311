"""AI-Hub data set 101, 생활 및 거주환경 기반 VQA: one answer per question, files that hold everything.

Layout: below folders that say Training or Validation, any number of JSON files, each with

* `images`    `[{image_id, image (file name), category, weather, …}]`
* `question`  `[{question_id, image_id, question, answer, answer_type, …}]`

The keys are those that public loaders of the data set read. Splits are made, and images found, as for set 104:
the folders of a label file stand for a category, and so does the image's own (`category`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from kovqa_core.data.example import Example
from kovqa_core.data.folder_walk import walk_folders
from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.data.tables import cell_text
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.index.find_image import FoundImage, find_image, one_image_of, row_with_problem
from kovqa_core.index.folder_names import PUBLISHER_SPLITS, other_splits, publisher_split
from kovqa_core.index.left_out import (
    ANSWER_EMPTY,
    FILE_WITHOUT_ROWS,
    ID_MISSING,
    QUESTION_MISSING,
    LeftOutRows,
)
from kovqa_core.index.packed_root import collect_archives, packed_notes
from kovqa_core.index.shards import DatasetShard, SourceOptions, SplitExamples
from kovqa_core.index.sources.aihub import (
    ACCEPTED_OPTIONS,
    MIN_ANSWER_COUNT,
    QUESTION_TYPE_GROUPS,
    SPLIT_METHOD,
    aihub_split,
    find_image_folder,
    missing_split_notes,
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
LabelFile = tuple[str, Path]  # (the publisher's split, file)
_SHARD_BYTES = 32 << 20  # bytes of label files in a shard, for a data set may have one file per image


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """Label files in sorted order, training first, several small ones in a shard.

    Raises:
        DataError: no JSON files, or none that says whether it is training or validation data; later: one that
            is broken or lacks a key.
    """
    # By the NFC path: the order must not depend on the Unicode form in which a disk keeps names.
    archives: list[str] = []
    labels = [
        root / below / name
        for below, names in collect_archives(walk_folders(root), archives)
        for name in names
        if name.lower().endswith(".json")
    ]
    files = sorted(
        ((publisher_split(path.parent, root), path) for path in labels),
        key=lambda file: (PUBLISHER_SPLITS.index(file[0]), to_nfc(str(file[1]))),
    )
    if not files:
        raise DataError(
            message("index.no-aihub101-labels", "no .json file below {root}", root=root),
            message("index.no-aihub101-labels.hint", "unpack AI-Hub's label archives there"),
        )
    shards = [
        DatasetShard(partial(_read_label_files, group, root, images), size, name=str(group[0][1]))
        for group, size in _group_label_files(files)
    ]
    notes = (*packed_notes(root, archives), *missing_split_notes(root, [path.parent for _, path in files]))
    return [replace(shards[0], notes=notes), *shards[1:]]


def _group_label_files(files: Sequence[LabelFile]) -> Iterator[tuple[list[LabelFile], int]]:
    group: list[LabelFile] = []
    size = 0
    for published, path in files:
        group.append((published, path))
        size += path.stat().st_size
        if size >= _SHARD_BYTES:
            yield group, size
            group, size = [], 0
    if group:
        yield group, size


def _read_label_files(
    files: Sequence[LabelFile], root: Path, images: Path, left_out: LeftOutRows
) -> SplitExamples:
    for published, path in files:
        image_rows = _find_images(path, root, images, published)
        id = None
        for row in iter_json_records(path, "question", _QUESTION_KEYS, _QUESTION_KEYS, as_text=True):
            id, image_id = cell_text(row["question_id"]), cell_text(row["image_id"])
            image, category = image_rows.get(image_id, (FoundImage(None, image_id), ""))
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
            elif image.path is None:
                left_out.add(image.reason, row_with_problem(f"id {id}", image, image_id))
            else:
                # The category is the image's; set 104 has it in the folder's name instead.
                yield aihub_split(image_id, published), Example(id, image.path, question, answer, category)
        if id is None:
            left_out.add(FILE_WITHOUT_ROWS, str(path))


def _find_images(path: Path, root: Path, images: Path, published: str) -> dict[str, tuple[FoundImage, str]]:
    """Image id -> the image and its category, of one label file."""
    # The nearest folder first: it says more than those above it.
    label_folders = [to_nfc(name) for name in reversed(path.parent.relative_to(root).parts)]
    found: dict[str, tuple[FoundImage, str]] = {}
    for row in iter_json_records(path, "images", _IMAGE_KEYS, (*_IMAGE_KEYS, "category"), as_text=True):
        id, category = cell_text(row["image_id"]), cell_text(row.get("category"))
        own_folders = (category, *label_folders)
        image = find_image(images, cell_text(row["image"]), own_folders, other_splits(published))
        found[id] = (image if id not in found else one_image_of(id, found[id][0], image), category)
    return found
