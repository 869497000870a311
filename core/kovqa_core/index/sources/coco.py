"""COCO captions in Karpathy's split: `dataset_coco.json`, images in `train2014/` and `val2014/`.

`train` and `restval` become `train`, one row per sentence; `val` and `test` have one row per image, with all
its sentences. A row's id is the image's COCO id, followed in `train` by the number of the sentence.
(docs/sources/beit3.md, B29; counts of the real file: docs/sources/datasets.md, D26)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from kovqa_core.data.example import Example
from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.data.tables import cell_text
from kovqa_core.errors import DataError
from kovqa_core.index.find_image import find_image, row_with_problem
from kovqa_core.index.left_out import CAPTION_MISSING, ID_MISSING, LeftOutRows
from kovqa_core.index.shards import DatasetShard, SourceOptions, SplitExamples
from kovqa_core.messages import message

SPLIT_METHOD = "as published"
MIN_ANSWER_COUNT = 1
ACCEPTED_OPTIONS = ()
QUESTION_TYPE_GROUPS: Mapping[str, Sequence[str]] = {}
COCO_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
KARPATHY_FILE = "dataset_coco.json"
_TEXT_KEYS = ("cocoid", "filepath", "filename", "split")
KARPATHY_KEYS = (*_TEXT_KEYS, "sentences")


def find_image_folder(root: Path) -> Path:
    """The folder of the images, unless the user names another."""
    return root


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """The whole file.

    Raises:
        DataError: later, while reading: it is missing, broken, lacks a key or names an unknown split.
    """
    file = root / KARPATHY_FILE
    return [
        DatasetShard(
            partial(_read_karpathy_file, file, images),
            file.stat().st_size if file.is_file() else 0,
            name=str(file),
        )
    ]


def _read_karpathy_file(file: Path, images: Path, left_out: LeftOutRows) -> SplitExamples:
    for row in iter_json_records(file, "images", KARPATHY_KEYS, _TEXT_KEYS, as_text=True):
        id, folder, bare_name = (cell_text(row[key]) for key in ("cocoid", "filepath", "filename"))
        # Without a file name there is no image; the folder alone must not be taken for one.
        name = f"{folder}/{bare_name}" if bare_name else ""
        split = COCO_SPLITS.get(cell_text(row["split"]))
        if split is None:
            raise DataError(
                message(
                    "index.unknown-coco-split", "{file}: image {id}: unknown split '{split}'",
                    file=file, id=id, split=row["split"],
                ),
                message("index.unknown-coco-split.hint", "download it again"),
            )  # fmt: skip
        try:
            captions = [cell_text(sentence["raw"]).strip() for sentence in row["sentences"]]
        except (KeyError, TypeError):
            raise DataError(
                message(
                    "index.no-coco-sentence", "{file}: image {id} lacks sentences[].raw", file=file, id=id
                ),
                message("index.no-coco-sentence.hint", "download it again"),
            ) from None
        captions = list(filter(None, captions))
        image = find_image(images, name)
        if not id:
            left_out.add(ID_MISSING, f"{file}: {name}")
        elif image.path is None:
            left_out.add(image.reason, row_with_problem(f"id {id}", image))
        elif not captions:
            left_out.add(CAPTION_MISSING, f"id {id}: {name}")
        elif split != "train":
            yield split, Example(id, image.path, "", captions=captions)
        else:
            # To train, every sentence is a row of its own; to score, an image needs all its sentences in one.
            for number, caption in enumerate(captions):
                yield split, Example(f"{id}-{number}", image.path, "", captions=[caption])
