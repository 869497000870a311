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
from kovqa_core.data.json_stream import records
from kovqa_core.errors import DataError
from kovqa_core.files import nfc
from kovqa_core.index.find_image import find_picture
from kovqa_core.index.shards import LeftOut, Options, Piece, Rows

DIVIDED = "the publisher's validation part by picture, SHA-256 of 'val/<image_id>': half val, half test"
_LEVELS = "상중하"


def pictures(root: Path) -> Path:
    """Where the pictures lie when nothing else is said."""
    return root / "images" if (root / "images").is_dir() else root


def pieces(root: Path, images: Path, options: Options) -> list[Piece]:
    """One piece a level folder, sorted by split, category and level.

    Raises:
        DataError: no label files; later: one that is broken or lacks a key.
    """
    return [Piece(partial(_read, folder, images), _size(folder)) for folder in label_folders(root)]


def label_folders(root: Path) -> list[Path]:
    """The level folders, training before validation, then by category, then 상, 중, 하.

    Raises:
        DataError: there are none.
    """
    folders = sorted((path.parent for path in root.rglob("annotation.json")), key=_order)
    if not folders:
        raise DataError(
            f"no annotation.json below {root}",
            "unpack AI-Hub's label archives there (set 101: kovqa index aihub101)",
        )
    return folders


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.json"))


def _order(folder: Path) -> tuple[bool, str, int, str]:
    name = nfc(folder.name)
    level = _LEVELS.find(name[:1])
    return is_validation(folder), nfc(folder.parent.name), level if level >= 0 else len(_LEVELS), name


def is_validation(folder: Path) -> bool:
    """The nearest folder name that says train or valid decides."""
    for part in (folder.name, *(parent.name for parent in folder.parents)):
        if "valid" in part.lower():
            return True
        if "train" in part.lower():
            return False
    raise DataError(f"{folder}: neither 'train' nor 'valid' in its path", "keep AI-Hub's folder names")


def split_of(validation: bool, image_id: str) -> str:
    """The split of a picture: the publisher's validation part is halved by a hash of its id."""
    if not validation:
        return "train"
    return "val" if hashlib.sha256(f"val/{image_id}".encode()).digest()[0] < 128 else "test"


def _read(folder: Path, images: Path, left_out: LeftOut) -> Rows:
    """The rows of one level folder, in the order of its annotations."""
    kind, validation = nfc(folder.parent.name), is_validation(folder)
    pictures = _pictures(folder, images)
    keys = ("question_id", "image_id", "multiple_choice_answer")
    for row, question in _joined(
        records(folder / "annotation.json", "annotations", keys),
        records(folder / "question.json", "questions", ("question_id", "question")),
    ):
        id, image_id = str(row["question_id"]), str(row["image_id"])
        image, file = pictures.get(image_id, (None, ""))
        answer = answer_of(text_of(row["multiple_choice_answer"]))
        if not question:
            left_out.add("question missing", f"id {id}: {folder / 'question.json'}")
        elif not answer:
            left_out.add("answer empty", f"id {id}: {folder / 'annotation.json'}")
        elif image is None:
            left_out.add("picture missing", f"id {id}: {file or nfc(image_id)}")
        else:
            yield split_of(validation, nfc(image_id)), Example(id, image, question, answer, kind)


def _pictures(folder: Path, images: Path) -> dict[str, tuple[str | None, str]]:
    """Image id -> the picture's path, if it is there, and the name the labels give it."""
    found = {}
    for row in records(folder / "images.json", "images", ("image_id", "image")):
        name = nfc(text_of(row["image"]))
        found[str(row["image_id"])] = (find_picture(images, name), name)
    return found


def _joined(
    annotations: Iterator[dict[str, Any]], questions: Iterator[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], str]]:
    """Every annotation with its question, "" when it has none.

    The two files mostly have one order, so that few questions wait for their annotation.
    """
    waiting: dict[str, str] = {}
    for row in annotations:
        id = str(row["question_id"])
        while id not in waiting and (question := next(questions, None)) is not None:
            waiting[str(question["question_id"])] = nfc(text_of(question["question"])).strip()
        yield row, waiting.pop(id, "")


@functools.lru_cache(maxsize=1 << 16)  # few answers make up most rows
def answer_of(text: str) -> dict[str, float]:
    """The only annotator's answer as soft labels."""
    return soft_labels([text])


def text_of(value: object) -> str:
    """A value of a label file as text; null is none."""
    return "" if value is None else str(value)
