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

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from kovqa_core.data.answers import soft_labels
from kovqa_core.data.example import Example
from kovqa_core.data.index import LeftOut, Options, Piece, Rows
from kovqa_core.errors import DataError
from kovqa_core.files import nfc, read_json

_LEVELS = "상중하"


def pictures(root: Path) -> Path:
    """Where the pictures lie when nothing else is said."""
    return root / "images" if (root / "images").is_dir() else root


def pieces(root: Path, images: Path, options: Options) -> list[Piece]:
    """One piece a level folder, sorted by split, category and level.

    Raises:
        DataError: no label files; later: one that is broken or lacks a key.
    """
    folders = sorted((path.parent for path in root.rglob("annotation.json")), key=_order)
    if not folders:
        raise DataError(f"no annotation.json below {root}", "unpack AI-Hub's label archives there")
    names = _picture_names(images)
    seen: set[str] = set()
    return [Piece(partial(_read, folder, names, seen)) for folder in folders]


def _read(folder: Path, names: dict[str, str], seen: set[str], left_out: LeftOut) -> Rows:
    for example, image_id in _rows(folder, names, left_out):
        if example.id in seen:
            left_out.add("question id appears twice", f"id {example.id}: {folder}")
            continue
        seen.add(example.id)
        yield _split(folder, image_id), example


def _order(folder: Path) -> tuple[bool, str, int, str]:
    name = nfc(folder.name)
    level = _LEVELS.find(name[:1])
    return _is_validation(folder), nfc(folder.parent.name), level if level >= 0 else len(_LEVELS), name


def _is_validation(folder: Path) -> bool:
    """The nearest folder name that says train or valid decides."""
    for part in (folder.name, *(parent.name for parent in folder.parents)):
        if "valid" in part.lower():
            return True
        if "train" in part.lower():
            return False
    raise DataError(f"{folder}: neither 'train' nor 'valid' in its path", "keep AI-Hub's folder names")


def _split(folder: Path, image_id: str) -> str:
    if not _is_validation(folder):
        return "train"
    return "val" if hashlib.sha256(f"val/{image_id}".encode()).digest()[0] < 128 else "test"


def _picture_names(images: Path) -> dict[str, str]:
    """NFC path, and NFC bare name, of every file -> its path on this disk, relative to `images`."""
    found: dict[str, str] = {}
    for folder, _, files in sorted(os.walk(images)):
        for file in sorted(files):
            relative = Path(folder, file).relative_to(images).as_posix()
            found.setdefault(nfc(file), relative)
            found[nfc(relative)] = relative
    return found


def _rows(folder: Path, names: dict[str, str], left_out: LeftOut) -> Iterator[tuple[Example, str]]:
    """Examples of one level folder, with their image ids."""
    files = {str(r["image_id"]): r["image"] for r in _table(folder, "images", ("image_id", "image"))}
    questions = {
        str(r["question_id"]): r["question"]
        for r in _table(folder, "question", ("question_id", "question"), "questions")
    }
    keys = ("question_id", "image_id", "multiple_choice_answer")
    for row in _table(folder, "annotation", keys, "annotations"):
        id, image_id = str(row["question_id"]), nfc(str(row["image_id"]))
        file = nfc(_text(files.get(str(row["image_id"]))))
        question = nfc(_text(questions.get(id))).strip()
        answers = soft_labels([_text(row["multiple_choice_answer"])])
        image = names.get(file) or names.get(file.rsplit("/", 1)[-1])
        if not question:
            left_out.add("question missing", f"id {id}: {folder / 'question.json'}")
        elif not answers:
            left_out.add("answer empty", f"id {id}: {folder / 'annotation.json'}")
        elif not file or image is None:
            left_out.add("picture missing", f"id {id}: {file or image_id}")
        else:
            yield Example(id, image, question, answers, nfc(folder.parent.name)), image_id


def _text(value: object) -> str:
    """A value of a label file as text; null is none."""
    return "" if value is None else str(value)


def _table(folder: Path, stem: str, keys: tuple[str, ...], name: str = "") -> list[dict[str, Any]]:
    """The list of records in one of the three files, every record checked for its keys."""
    path = folder / f"{stem}.json"
    content = read_json(path)
    rows = content.get(name or stem) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise DataError(f"{path}: no list '{name or stem}'", "fetch or unpack it again")
    for number, row in enumerate(rows):
        lacking = [key for key in keys if not isinstance(row, dict) or key not in row]
        if lacking:
            raise DataError(f"{path}: record {number + 1} lacks '{lacking[0]}'", "fetch or unpack it again")
    return rows
