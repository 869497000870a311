"""AI-Hub data set 104, 시각정보 기반 질의응답: one answer per question, three levels per category.

Layout, below any folders: `…train…/<category>/<level>_train_<category>/` and
`…valid…/<category>/<level>_validate_<category>/`, level 상, 중 or 하, each with

* `annotation.json`  `{"annotations": [{question_id, image_id, multiple_choice_answer, …}]}`
* `images.json`      `{"images": [{image_id, image (file name), …}]}`
* `question.json`    `{"questions": [{question_id, image_id, question, …}]}`

The publisher's training data is `train`. Its validation data is halved into `val` and `test` by image, with
a hash, so that all questions about an image are in one split, on any machine. Registered users in Korea
download it from AI-Hub; it may not be passed on.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from kovqa_core.data.answers import soft_labels
from kovqa_core.data.example import Example
from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.data.json_values import JsonRecord
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
from kovqa_core.messages import message

SPLIT_METHOD = "the publisher's validation part by picture, SHA-256 of 'val/<image_id>': half val, half test"
MIN_ANSWER_COUNT = None
ACCEPTED_OPTIONS = ()
QUESTION_TYPE_GROUPS: Mapping[str, Sequence[str]] = {}
_LEVEL_ORDER = "상중하"


def find_image_folder(root: Path) -> Path:
    """The folder of the images, unless the user names another."""
    return root / "images" if (root / "images").is_dir() else root


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """One shard per level folder, sorted by split, category and level.

    Raises:
        DataError: no label files; later: one that is broken or lacks a key.
    """
    return [
        DatasetShard(partial(_read_level_folder, folder, images), _label_bytes(folder))
        for folder in label_folders(root)
    ]


def label_folders(root: Path) -> list[Path]:
    """The level folders, training before validation, then by category, then 상, 중, 하.

    Raises:
        DataError: there are none.
    """
    folders = sorted((path.parent for path in root.rglob("annotation.json")), key=_level_sort_key)
    if not folders:
        raise DataError(
            message("index.no-aihub-labels", "no annotation.json below {root}", root=root),
            message(
                "index.no-aihub-labels.hint",
                "unpack AI-Hub's label archives there (set 101: kovqa index aihub101)",
            ),
        )
    return folders


def _label_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.json"))


def _level_sort_key(folder: Path) -> tuple[bool, str, int, str]:
    # NFC: archives unpacked on a Mac have names in NFD, whose first letter is not 상 but ㅅ.
    name = to_nfc(folder.name)
    level = _LEVEL_ORDER.find(name[:1])
    return (
        is_validation_folder(folder),
        to_nfc(folder.parent.name),
        level if level >= 0 else len(_LEVEL_ORDER),
        name,
    )


def is_validation_folder(folder: Path) -> bool:
    """The nearest folder name that says train or valid decides."""
    # The nearest decides: a data set may lie below a folder such as `training-data`.
    for name in (folder.name, *(parent.name for parent in folder.parents)):
        if "valid" in name.lower():
            return True
        if "train" in name.lower():
            return False
    raise DataError(
        message("index.no-split-in-path", "{folder}: neither 'train' nor 'valid' in its path", folder=folder),
        message("index.no-split-in-path.hint", "keep AI-Hub's folder names"),
    )


def aihub_split(image_id: str, *, is_validation: bool) -> str:
    """The split of an image: the publisher's validation data is halved by a hash of the image's id."""
    if not is_validation:
        return "train"
    # The first byte of the hash: half of its 256 values. Never change it: indexes in use would get other splits.
    return "val" if hashlib.sha256(f"val/{image_id}".encode()).digest()[0] < 128 else "test"


def _read_level_folder(folder: Path, images: Path, left_out: LeftOutRows) -> SplitExamples:
    """The rows of one level folder, in the order of its annotations."""
    question_type, is_validation = to_nfc(folder.parent.name), is_validation_folder(folder)
    # The images of one folder fit into memory; its questions are only passed by.
    image_paths = _image_paths(folder, images)
    keys, question_keys = ("question_id", "image_id", "multiple_choice_answer"), ("question_id", "question")
    for row, question in _join_questions(
        iter_json_records(folder / "annotation.json", "annotations", keys, keys, as_text=True),
        iter_json_records(folder / "question.json", "questions", question_keys, question_keys, as_text=True),
    ):
        id, image_id = cell_text(row["question_id"]), cell_text(row["image_id"])
        image, name = image_paths.get(image_id, (None, ""))
        answer = single_answer_labels(cell_text(row["multiple_choice_answer"]))
        if not id:
            left_out.add(ID_MISSING, f"{folder / 'annotation.json'}: {question or image_id}")
        elif not question:
            left_out.add(QUESTION_MISSING, f"id {id}: {folder / 'question.json'}")
        elif not answer:
            left_out.add(ANSWER_EMPTY, f"id {id}: {folder / 'annotation.json'}")
        elif image is None:
            left_out.add(IMAGE_MISSING, f"id {id}: {name or image_id}")
        else:
            split = aihub_split(image_id, is_validation=is_validation)
            yield split, Example(id, image, question, answer, question_type)


def _image_paths(folder: Path, images: Path) -> dict[str, tuple[str | None, str]]:
    """Image id -> the image's path, if there is one, and its name in the labels."""
    paths = {}
    keys = ("image_id", "image")
    for row in iter_json_records(folder / "images.json", "images", keys, keys, as_text=True):
        name = cell_text(row["image"])
        paths[cell_text(row["image_id"])] = (find_image(images, name), name)
    return paths


def _join_questions(
    annotations: Iterator[JsonRecord], questions: Iterator[JsonRecord]
) -> Iterator[tuple[JsonRecord, str]]:
    """Every annotation with its question, "" when it has none.

    The two files mostly have the same order, so that few questions wait in memory for their annotation.
    """
    waiting: dict[str, str] = {}
    for row in annotations:
        id = cell_text(row["question_id"])
        # Only as far as this annotation needs: both files pass by once, row beside row.
        while id not in waiting and (question := next(questions, None)) is not None:
            waiting[cell_text(question["question_id"])] = cell_text(question["question"]).strip()
        yield row, waiting.pop(id, "")


@functools.lru_cache(maxsize=1 << 16)  # few answers make up most rows
def single_answer_labels(text: str) -> dict[str, float]:
    """The answer of the only annotator as soft labels; the result is shared, not to be changed."""
    return soft_labels([text])
