"""An index of webdataset shards: splits, ids, images in place; and whoever else opens those images."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.answer.chat_completions import image_data_url
from kovqa_core.answer.row_digest import digest_row
from kovqa_core.data.image_io import open_image
from kovqa_core.errors import DataError
from kovqa_core.index.build import build_index, build_upstream_files
from kovqa_core.index.reader import open_index
from kovqa_core.view.thumbnails import Thumbnails

from tests.data.test_webdataset import QA, picture, said, write_tar


def shard(path: Path, numbers: range, mode: str = "w") -> Path:
    files = [(f"{n:03d}{end}", data) for n in numbers for end, data in ((".png", picture(n)), (".json", QA))]
    return write_tar(path, files, mode=mode)


def test_shards_of_a_folder_have_their_splits_and_ids_of_their_own(tmp_path: Path) -> None:
    shard(tmp_path / "세트/train-000.tar", range(4))
    shard(tmp_path / "세트/train-001.tar", range(4))
    shard(tmp_path / "세트/val/000.tar", range(2))
    write_tar(tmp_path / "세트/test-000.tar", [("9.png", picture(9)), ("9.json", said(question="뭐?"))])
    build_index("table", tmp_path / "세트", None, tmp_path / "index", min_count=1, check_images=True)
    index = open_index(tmp_path / "index")
    train = list(index.split("train"))
    assert [example.id for example in train[:2]] == ["train-000/000", "train-000/001"]
    assert len({example.id for example in train}) == 8
    assert [example.image for example in index.split("val")] == [
        "세트/val/000.tar/000.png",
        "세트/val/000.tar/001.png",
    ]
    assert [example.id for example in index.split("test")] == ["test-000/9"]
    for example in train:
        assert open_image(index.images / example.image).size == (6, 4)
    assert not (tmp_path / "index/images").exists()


def test_images_of_a_gzip_file_become_files_of_the_index(tmp_path: Path) -> None:
    shard(tmp_path / "t.tar.gz", range(30), "w:gz")
    build_index("table", tmp_path / "t.tar.gz", None, tmp_path / "index", min_count=1)
    index = open_index(tmp_path / "index")
    assert len(list((tmp_path / "index/images").iterdir())) == 30
    assert sum(1 for name in ("train", "val") for _ in index.split(name)) == 30


def test_samples_left_out_are_counted_and_other_sources_take_no_tar(tmp_path: Path) -> None:
    tar = shard(tmp_path / "t.tar", range(50))
    write_tar(tar, [("x.json", QA), ("y.png", picture(1))], mode="a")
    report = build_index("table", tar, None, tmp_path / "index", min_count=1)
    assert {each.reason: each.count for each in report.counts.left_out} == {"sample incomplete": 2}
    with pytest.raises(DataError, match="a tar archive"):
        build_upstream_files("aihub", tar, None, tmp_path / "out", lambda text: [])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    build_index("table", tar, elsewhere, tmp_path / "second", min_count=1)
    index = open_index(tmp_path / "second")
    example = next(iter(index.split("train")))
    assert open_image(index.images / example.image).size == (6, 4), "images need not lie below --images"


def test_everybody_opens_an_image_in_a_tar(tmp_path: Path) -> None:
    tar = shard(tmp_path / "t.tar", range(3))
    build_index("table", tar, None, tmp_path / "index", min_count=1)
    index = open_index(tmp_path / "index")
    example = next(iter(index.split("train")))
    path = index.images / example.image
    assert image_data_url(path).startswith("data:image/png;base64,")
    thumbnail = Thumbnails(index.images).jpeg(example.image, 96)
    before = digest_row(example, index.images)
    write_tar(tar, [(Path(example.image).name, picture(5) + bytes(9))])
    assert digest_row(example, index.images) != before
    assert Thumbnails(index.images).jpeg(example.image, 96) != thumbnail
