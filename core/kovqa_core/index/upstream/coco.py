"""BEiT-3's files of COCO captions, NoCaps and retrieval (docs/sources/beit3.md, B29)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kovqa_core.data.json_stream import records
from kovqa_core.index.sources.coco import FILE, KEYS
from kovqa_core.index.upstream import Encode
from kovqa_core.index.upstream.rows import write_rows

_SPLITS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}
_NOCAPS = {"val": "nocaps_val_4500_captions.json", "test": "nocaps_test_image_info.json"}
Row = dict[str, Any]

NEEDS_TOKENIZER = True


def write(root: Path, images: Path, folder: Path, encode: Encode) -> None:
    """Write `coco_captioning.*`, `coco_retrieval.*` and, where its files lie in `root`, `nocaps.*`."""
    for split, parts in _SPLITS.items():
        write_rows(folder / f"coco_captioning.{split}.jsonl", _captioning(root, parts, encode))
        write_rows(folder / f"coco_retrieval.{split}.jsonl", _retrieval(root, parts, encode))
    for split, name in _NOCAPS.items():
        if (root / name).is_file():
            write_rows(folder / f"nocaps.{split}.jsonl", _nocaps(root / name, split))


def _pictures(root: Path, parts: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    for row in records(root / FILE, "images", KEYS):
        if row["split"] in parts:
            yield f"{row['filepath']}/{row['filename']}", row


def _captioning(root: Path, parts: tuple[str, ...], encode: Encode) -> Iterator[Row]:
    for path, row in _pictures(root, parts):
        texts = [encode(s["raw"]) for s in row["sentences"]] if "train" in parts else [None]
        for ids in texts:
            yield {"image_path": path, "text_segment": ids, "image_id": row["cocoid"]}


def _retrieval(root: Path, parts: tuple[str, ...], encode: Encode) -> Iterator[Row]:
    for number, (path, row) in enumerate(_pictures(root, parts)):
        for sentence in row["sentences"]:
            yield {"image_path": path, "text_segment": encode(sentence["raw"]), "image_id": number}


def _nocaps(file: Path, split: str) -> Iterator[Row]:
    for row in records(file, "images", ("id", "file_name")):
        path = f"{split}/{row['file_name']}"
        yield {"image_path": path, "text_segment": None, "image_id": row["id"]}
