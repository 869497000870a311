"""The original's index files: `kovqa index --as-upstream` writes the same."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.index.build import build_index, build_upstream_files
from kovqa_core.index.reader import open_index
from kovqa_core.index.upstream import aihub
from kovqa_core.index.upstream.rows import EncodeText
from kovqa_core.models.xlmr_tokenizer import load_xlmr_tokenizer

from tests import parity


@pytest.fixture(scope="module")
def encode() -> EncodeText:
    return load_xlmr_tokenizer(parity.path("tokenizer.model")).encode


def rows(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.dumps(json.loads(line), sort_keys=True) for line in lines]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_parity_beit3_aihub(tmp_path: Path, encode: EncodeText) -> None:
    """Scores that count up, classes of all splits, a list of missing images that hardly works."""
    categories = parity.json_of("aihub/notes.json")["category_order"]
    root = parity.path("aihub/input")
    aihub.write_upstream_files(root, root, tmp_path, encode, categories)
    assert files(tmp_path) == files(parity.path("aihub/expected_upstream"))


def test_parity_beit3_coco(tmp_path: Path, encode: EncodeText) -> None:
    root = parity.path("coco_caption/input")
    build_upstream_files("coco", root, None, tmp_path / "up", encode)
    assert files(tmp_path / "up") == files(parity.path("coco_caption/expected"))


@pytest.fixture(scope="module")
def vqav2(tmp_path_factory: pytest.TempPathFactory, encode: EncodeText) -> Path:
    folder = tmp_path_factory.mktemp("vqav2") / "up"
    build_upstream_files("vqav2", parity.path("vqav2/input"), None, folder, encode)
    return folder


def test_parity_beit3_vqav2_labels_in_order(vqav2: Path) -> None:
    name = "answer2label.txt"
    assert (vqav2 / name).read_bytes() == parity.path(f"vqav2/expected/{name}").read_bytes()


@pytest.mark.parametrize("split", ["train", "val", "test", "test-dev"])
def test_parity_beit3_vqav2_rows(vqav2: Path, split: str) -> None:
    name = f"vqa.{split}.jsonl"
    assert Counter(rows(vqav2 / name)) == Counter(rows(parity.path(f"vqav2/expected/{name}")))


def test_parity_beit3_vqav2_validation_cut_in_two(vqav2: Path) -> None:
    """The original's shuffle has no seed: the two files are as large as its, and share no image."""

    def image_paths(folder: Path) -> list[set[str]]:
        parts = [folder / f"vqa.{part}.jsonl" for part in ("rest_val", "trainable_val")]
        return [{json.loads(row)["image_path"] for row in rows(part)} for part in parts]

    expected = parity.path("vqav2/expected")
    ours, theirs = image_paths(vqav2), image_paths(expected)
    assert not ours[0] & ours[1]
    assert [len(part) for part in ours] == [len(part) for part in theirs]
    both = [*rows(vqav2 / "vqa.rest_val.jsonl"), *rows(vqav2 / "vqa.trainable_val.jsonl")]
    assert Counter(both) == Counter(rows(expected / "vqa.val.jsonl"))


def test_parity_beit3_vqav2_index_asks_the_same_questions(tmp_path: Path) -> None:
    """Our own index: the same questions on the same images; none is lost."""
    build_index("vqav2", parity.path("vqav2/input"), None, tmp_path / "index")
    index = open_index(tmp_path / "index")
    for split in ("val", "test", "test-dev"):
        theirs: dict[str, dict[str, Any]] = {
            str(row["qid"]): row
            for row in map(json.loads, rows(parity.path(f"vqav2/expected/vqa.{split}.jsonl")))
        }
        ours = {e.id: e for e in index.split(split)}
        assert theirs.keys() <= ours.keys()
        assert all(ours[id].image == row["image_path"] for id, row in theirs.items())


def test_parity_beit3_vqav2_items(tmp_path: Path, vqav2: Path) -> None:
    """What the original's loader makes of a row: our questions, framed, and the labels beside them."""
    tokenizer = load_xlmr_tokenizer(parity.path("tokenizer.model"))
    build_index("vqav2", parity.path("vqav2/input"), None, tmp_path / "index")
    index = open_index(tmp_path / "index")
    for item in parity.json_of("vqav2/expected_items.json"):
        (question,) = {e.question for e in index.split(item["split"]) if e.id == str(item["qid"])}
        tokens = zip(item["language_tokens"], item["padding_mask"], strict=True)
        assert tokenizer.encode_with_specials(question, item["max_len"]) == [
            token for token, padding in tokens if not padding
        ]
        written = map(json.loads, rows(vqav2 / f"vqa.{item['split']}.jsonl"))
        (row,) = (row for row in written if row["qid"] == item["qid"])
        labels = sorted(zip(row["labels"], row["scores"], strict=True))
        assert labels == [(label, pytest.approx(score)) for label, score in item.get("labels", ())]
