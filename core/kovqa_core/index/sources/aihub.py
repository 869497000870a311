"""AI-Hub data set 104, 시각정보 기반 질의응답: one answer per question, three levels per category.

Layout, below any folders: `…train…/<category>/<level>_train_<category>/` and
`…valid…/<category>/<level>_validate_<category>/`, level 상, 중 or 하, each with

* `annotation.json`  `{"annotations": [{question_id, image_id, multiple_choice_answer, …}]}`
* `images.json`      `{"images": [{image_id, image (file name), …}]}`
* `question.json`    `{"questions": [{question_id, image_id, question, …}]}`

The publisher's training part is `train`. Its validation part is halved into `val` and `test` by
picture, with a hash, so that all questions about one picture fall on one side, on any machine.
Registered users in Korea fetch it from AI-Hub; it may not be passed on.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from kovqa_core.data.answers import soft_labels
from kovqa_core.data.example import Example
from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.index.find_image import find_image
from kovqa_core.index.shards import DatasetShard, LeftOutRows, SourceOptions, SplitExamples

SPLIT_METHOD = "the publisher's validation part by picture, SHA-256 of 'val/<image_id>': half val, half test"
_LEVEL_ORDER = "상중하"


def find_image_folder(root: Path) -> Path:
    """Where the pictures lie when nothing else is said."""
    return root / "images" if (root / "images").is_dir() else root


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """One piece a level folder, sorted by split, category and level.

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
            f"no annotation.json below {root}",
            "unpack AI-Hub's label archives there (set 101: kovqa index aihub101)",
        )
    return folders


def _label_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.json"))


def _level_sort_key(folder: Path) -> tuple[bool, str, int, str]:
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
    for part in (folder.name, *(parent.name for parent in folder.parents)):
        if "valid" in part.lower():
            return True
        if "train" in part.lower():
            return False
    raise DataError(f"{folder}: neither 'train' nor 'valid' in its path", "keep AI-Hub's folder names")


def aihub_split(validation: bool, image_id: str) -> str:
    """The split of a picture: the publisher's validation part is halved by a hash of its id."""
    if not validation:
        return "train"
    return "val" if hashlib.sha256(f"val/{image_id}".encode()).digest()[0] < 128 else "test"


def _read_level_folder(folder: Path, images: Path, left_out: LeftOutRows) -> SplitExamples:
    """The rows of one level folder, in the order of its annotations."""
    kind, validation = to_nfc(folder.parent.name), is_validation_folder(folder)
    pictures = _image_paths(folder, images)
    keys = ("question_id", "image_id", "multiple_choice_answer")
    for row, question in _join_questions(
        iter_json_records(folder / "annotation.json", "annotations", keys),
        iter_json_records(folder / "question.json", "questions", ("question_id", "question")),
    ):
        id, image_id = str(row["question_id"]), str(row["image_id"])
        image, file = pictures.get(image_id, (None, ""))
        answer = single_answer_labels(label_text(row["multiple_choice_answer"]))
        if not question:
            left_out.add("question missing", f"id {id}: {folder / 'question.json'}")
        elif not answer:
            left_out.add("answer empty", f"id {id}: {folder / 'annotation.json'}")
        elif image is None:
            left_out.add("picture missing", f"id {id}: {file or to_nfc(image_id)}")
        else:
            yield aihub_split(validation, to_nfc(image_id)), Example(id, image, question, answer, kind)


def _image_paths(folder: Path, images: Path) -> dict[str, tuple[str | None, str]]:
    """Image id -> the picture's path, if it is there, and the name the labels give it."""
    found = {}
    for row in iter_json_records(folder / "images.json", "images", ("image_id", "image")):
        name = to_nfc(label_text(row["image"]))
        found[str(row["image_id"])] = (find_image(images, name), name)
    return found


def _join_questions(
    annotations: Iterator[dict[str, Any]], questions: Iterator[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], str]]:
    """Every annotation with its question, "" when it has none.

    The two files mostly have one order, so that few questions wait for their annotation.
    """
    waiting: dict[str, str] = {}
    for row in annotations:
        id = str(row["question_id"])
        while id not in waiting and (question := next(questions, None)) is not None:
            waiting[str(question["question_id"])] = to_nfc(label_text(question["question"])).strip()
        yield row, waiting.pop(id, "")


@functools.lru_cache(maxsize=1 << 16)  # few answers make up most rows
def single_answer_labels(text: str) -> dict[str, float]:
    """The only annotator's answer as soft labels."""
    return soft_labels([text])


def label_text(value: object) -> str:
    """A value of a label file as text; null is none."""
    return "" if value is None else str(value)
