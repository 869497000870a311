"""COCO captions in Karpathy's split: `dataset_coco.json`, pictures in `train2014/` and `val2014/`.

`train` and `restval` become `train`, one row a sentence; `val` and `test` have one row a picture,
with all its sentences. A row's id is the picture's COCO id, followed by the sentence's in `train`.
(docs/sources/beit3.md, B29; counts of the real file: docs/sources/datasets.md, D26)
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kovqa_core.data.example import Example
from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.data.tables import cell_text
from kovqa_core.errors import DataError
from kovqa_core.index.find_image import find_image
from kovqa_core.index.shards import DatasetShard, LeftOutRows, SourceOptions, SplitExamples

MIN_ANSWER_COUNT = 1
COCO_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
KARPATHY_FILE = "dataset_coco.json"
KARPATHY_KEYS = ("filepath", "filename", "split", "cocoid", "sentences")


def find_image_folder(root: Path) -> Path:
    """Where the pictures lie when nothing else is said."""
    return root


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """The whole file.

    Raises:
        DataError: later: it is missing, broken, lacks a key or names an unknown split.
    """
    file = root / KARPATHY_FILE
    return [
        DatasetShard(partial(_read_karpathy_file, file, images), file.stat().st_size if file.is_file() else 0)
    ]


def _read_karpathy_file(file: Path, images: Path, left_out: LeftOutRows) -> SplitExamples:
    for row in iter_json_records(file, "images", KARPATHY_KEYS):
        id, name = cell_text(row["cocoid"]), f"{row['filepath']}/{row['filename']}"
        split = COCO_SPLITS.get(row["split"])
        if split is None:
            raise DataError(f"{file}: picture {id}: unknown split '{row['split']}'", "fetch it again")
        try:
            captions = [cell_text(sentence["raw"]).strip() for sentence in row["sentences"]]
        except (KeyError, TypeError):
            raise DataError(f"{file}: picture {id} lacks sentences[].raw", "fetch it again") from None
        captions = list(filter(None, captions))
        image = find_image(images, name)
        if image is None:
            left_out.add("picture missing", f"id {id}: {name}")
        elif not captions:
            left_out.add("no caption", f"id {id}: {name}")
        elif split != "train":
            yield split, Example(id, image, "", captions=captions)
        else:
            for number, caption in enumerate(captions):
                yield split, Example(f"{id}-{number}", image, "", captions=[caption])
