"""COCO captions in Karpathy's split: `dataset_coco.json`, pictures in `train2014/` and `val2014/`.

`train` and `restval` become `train`, one row a sentence; `val` and `test` have one row a picture,
with all its sentences. A row's id is the picture's COCO id, followed by the sentence's in `train`.
(docs/sources/beit3.md, B29; counts of the real file: docs/sources/datasets.md, D26)
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kovqa_core.data.example import Example
from kovqa_core.data.json_stream import records
from kovqa_core.data.tables import text
from kovqa_core.errors import DataError
from kovqa_core.index.find_image import find_picture
from kovqa_core.index.shards import LeftOut, Options, Piece, Rows

MIN_COUNT = 1
SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
FILE = "dataset_coco.json"
KEYS = ("filepath", "filename", "split", "cocoid", "sentences")


def pictures(root: Path) -> Path:
    """Where the pictures lie when nothing else is said."""
    return root


def pieces(root: Path, images: Path, options: Options) -> list[Piece]:
    """The whole file.

    Raises:
        DataError: later: it is missing, broken, lacks a key or names an unknown split.
    """
    file = root / FILE
    return [Piece(partial(_read, file, images), file.stat().st_size if file.is_file() else 0)]


def _read(file: Path, images: Path, left_out: LeftOut) -> Rows:
    for row in records(file, "images", KEYS):
        id, name = text(row["cocoid"]), f"{row['filepath']}/{row['filename']}"
        split = SPLITS.get(row["split"])
        if split is None:
            raise DataError(f"{file}: picture {id}: unknown split '{row['split']}'", "fetch it again")
        try:
            captions = [text(sentence["raw"]).strip() for sentence in row["sentences"]]
        except (KeyError, TypeError):
            raise DataError(f"{file}: picture {id} lacks sentences[].raw", "fetch it again") from None
        captions = list(filter(None, captions))
        image = find_picture(images, name)
        if image is None:
            left_out.add("picture missing", f"id {id}: {name}")
        elif not captions:
            left_out.add("no caption", f"id {id}: {name}")
        elif split != "train":
            yield split, Example(id, image, "", captions=captions)
        else:
            for number, caption in enumerate(captions):
                yield split, Example(f"{id}-{number}", image, "", captions=[caption])
