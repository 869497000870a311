"""BEiT-3's files of COCO captions, NoCaps and retrieval (docs/sources/beit3.md, B29)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.data.json_values import JsonRecord
from kovqa_core.index.sources.coco import KARPATHY_FILE, KARPATHY_KEYS
from kovqa_core.index.upstream.rows import EncodeText, UpstreamRow, write_json_rows

_KARPATHY_SPLITS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}
_NOCAPS_FILES = {"val": "nocaps_val_4500_captions.json", "test": "nocaps_test_image_info.json"}

NEEDS_TOKENIZER = True


def write_upstream_files(root: Path, images: Path, folder: Path, encode: EncodeText) -> None:
    """Write `coco_captioning.*`, `coco_retrieval.*` and, where its files are in `root`, `nocaps.*`."""
    for split, karpathy_splits in _KARPATHY_SPLITS.items():
        write_json_rows(
            folder / f"coco_captioning.{split}.jsonl", _captioning_rows(root, karpathy_splits, encode)
        )
        write_json_rows(
            folder / f"coco_retrieval.{split}.jsonl", _retrieval_rows(root, karpathy_splits, encode)
        )
    for split, name in _NOCAPS_FILES.items():
        if (root / name).is_file():
            write_json_rows(folder / f"nocaps.{split}.jsonl", _nocaps_rows(root / name, split))


def _iter_coco_images(root: Path, karpathy_splits: tuple[str, ...]) -> Iterator[tuple[str, JsonRecord]]:
    for row in iter_json_records(root / KARPATHY_FILE, "images", KARPATHY_KEYS):
        if row["split"] in karpathy_splits:
            yield f"{row['filepath']}/{row['filename']}", row


def _captioning_rows(
    root: Path, karpathy_splits: tuple[str, ...], encode: EncodeText
) -> Iterator[UpstreamRow]:
    for path, row in _iter_coco_images(root, karpathy_splits):
        # A row per sentence to train on; one row per image, without text, where captions are to be generated.
        texts = [encode(s["raw"]) for s in row["sentences"]] if "train" in karpathy_splits else [None]
        for ids in texts:
            yield {"image_path": path, "text_segment": ids, "image_id": row["cocoid"]}


def _retrieval_rows(
    root: Path, karpathy_splits: tuple[str, ...], encode: EncodeText
) -> Iterator[UpstreamRow]:
    # Retrieval numbers images by their place in the split, captioning by COCO's own ids.
    for number, (path, row) in enumerate(_iter_coco_images(root, karpathy_splits)):
        for sentence in row["sentences"]:
            yield {"image_path": path, "text_segment": encode(sentence["raw"]), "image_id": number}


def _nocaps_rows(file: Path, split: str) -> Iterator[UpstreamRow]:
    for row in iter_json_records(file, "images", ("id", "file_name")):
        path = f"{split}/{row['file_name']}"
        yield {"image_path": path, "text_segment": None, "image_id": row["id"]}
