"""AI-Hub data set 101, 생활 및 거주환경 기반 VQA: one answer per question, files that hold everything.

Layout: below folders that say Training or Validation, any number of JSON files, each with

* `images`    `[{image_id, image (file name), category, weather, …}]`
* `question`  `[{question_id, image_id, question, answer, answer_type, …}]`

The keys are those that the public loaders of the set read. Splits are made as for set 104.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from kovqa_core.data.example import Example
from kovqa_core.data.json_stream import records
from kovqa_core.errors import DataError
from kovqa_core.files import nfc
from kovqa_core.index.find_image import find_picture
from kovqa_core.index.shards import LeftOut, Options, Piece, Rows
from kovqa_core.index.sources.aihub import DIVIDED, answer_of, is_validation, pictures, split_of, text_of

__all__ = ["DIVIDED", "pictures", "pieces"]
_PIECE = 32 << 20  # bytes of label files read in one go, for a set may have one file a picture


def pieces(root: Path, images: Path, options: Options) -> list[Piece]:
    """Label files in sorted order, training first, several small ones in a piece.

    Raises:
        DataError: no JSON files; later: one that is broken or lacks a key.
    """
    files = sorted(root.rglob("*.json"), key=lambda path: (is_validation(path.parent), nfc(str(path))))
    if not files:
        raise DataError(f"no .json file below {root}", "unpack AI-Hub's label archives there")
    return [Piece(partial(_read, group, images), size) for group, size in _groups(files)]


def _groups(files: Sequence[Path]) -> Iterator[tuple[list[Path], int]]:
    group: list[Path] = []
    size = 0
    for path in files:
        group.append(path)
        size += path.stat().st_size
        if size >= _PIECE:
            yield group, size
            group, size = [], 0
    if group:
        yield group, size


def _read(files: Sequence[Path], images: Path, left_out: LeftOut) -> Rows:
    for path in files:
        validation = is_validation(path.parent)
        shown = {
            str(row["image_id"]): (find_picture(images, nfc(text_of(row["image"]))), row)
            for row in records(path, "images", ("image_id", "image"))
        }
        for row in records(path, "question", ("question_id", "image_id", "question", "answer")):
            id, image_id = str(row["question_id"]), str(row["image_id"])
            image, about = shown.get(image_id, (None, {}))
            question, answer = nfc(text_of(row["question"])).strip(), answer_of(text_of(row["answer"]))
            if not question:
                left_out.add("question missing", f"id {id}: {path}")
            elif not answer:
                left_out.add("answer empty", f"id {id}: {path}")
            elif image is None:
                left_out.add("picture missing", f"id {id}: {about.get('image', image_id)}")
            else:
                kind = nfc(text_of(about.get("category")))
                yield split_of(validation, nfc(image_id)), Example(id, image, question, answer, kind)
