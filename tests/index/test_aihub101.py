"""AI-Hub set 101: files that hold images, questions and answers together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError
from kovqa_core.index.left_out import LeftOutRows
from kovqa_core.index.shards import SourceOptions
from kovqa_core.index.sources import aihub101

from tests.index.raw_data import write_images, write_table


def tree(root: Path, folder: str, *numbers: int) -> Path:
    path = root / folder / "[라벨]개인생활환경" / f"{numbers[0]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, {
        "images": [
            {"image_id": f"p{n}", "image": f"p{n}.jpg", "category": "거실", "weather": "맑음"} for n in numbers
        ],
        "question": [
            {"question_id": n, "image_id": f"p{n}", "question": "뭐가 있나요?", "answer": " 의자", "answer_type": "객체"}
            for n in numbers
        ],
    })  # fmt: skip
    return path


def read(root: Path) -> tuple[list[tuple[str, Example]], LeftOutRows]:
    left_out = LeftOutRows()
    shards = aihub101.dataset_shards(root, aihub101.find_image_folder(root), SourceOptions())
    return [row for shard in shards for row in shard.read(left_out)], left_out


def test_training_and_validation_data(tmp_path: Path) -> None:
    tree(tmp_path, "Validation", *range(10, 30))
    tree(tmp_path, "Training", 1, 2, 3)
    write_images(tmp_path, [f"개인/p{n}.jpg" for n in range(1, 30)])
    rows, left_out = read(tmp_path)
    assert rows[0] == ("train", Example("1", "개인/p1.jpg", "뭐가 있나요?", {"의자": 1.0}, "거실"))
    assert {split for split, _ in rows} == {"train", "val", "test"} and len(rows) == 23
    assert not left_out.counts


def test_rows_left_out_are_listed(tmp_path: Path) -> None:
    path = tree(tmp_path, "Training", 1, 2)
    write_images(tmp_path, ["p1.jpg"])
    assert read(tmp_path)[1].listed == {"picture missing": ["id 2: p2.jpg"]}
    path.write_text(path.read_text().replace("뭐가 있나요?", "").replace(" 의자", "의자", 1))
    assert read(tmp_path)[1].counts == {"question missing": 2}


def test_small_files_share_a_shard_and_large_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(5):
        tree(tmp_path, "Training", n)
    assert len(aihub101.dataset_shards(tmp_path, tmp_path, SourceOptions())) == 1
    monkeypatch.setattr(aihub101, "_SHARD_BYTES", 400)
    assert len(aihub101.dataset_shards(tmp_path, tmp_path, SourceOptions())) == 3


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.json file"):
        read(tmp_path)


def test_what_systems_leave_in_folders_is_no_label_file(tmp_path: Path) -> None:
    folder = tree(tmp_path, "Training", 1, 2, 3).parent
    (folder / "._1.json").write_bytes(b"\0\5\26\7\260")
    for name in ("dataset_info.json", ".aihub-101.json", "__MACOSX/Training/1.json", "@eaDir/1.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    write_images(tmp_path, ["p1.jpg", "p2.jpg", "p3.jpg", "__MACOSX/p1.jpg", "._p1.jpg"])
    rows, left_out = read(tmp_path)
    assert ([e.image for _, e in rows], left_out.counts) == (["p1.jpg", "p2.jpg", "p3.jpg"], {})


def test_images_of_one_name_belong_to_the_label_files_folder(tmp_path: Path) -> None:
    path = tree(tmp_path, "1.Training", 1)
    other = tmp_path / "1.Training" / "[라벨]가구" / "1.json"
    other.parent.mkdir()
    other.write_text(path.read_text().replace('"question_id": 1', '"question_id": 2'))
    write_images(tmp_path, ["1.Training/[원천]가구/p1.jpg", "1.Training/[원천]개인생활환경/p1.jpg"])
    rows, _ = read(tmp_path)
    assert {e.id: e.image for _, e in rows} == {
        "1": "1.Training/[원천]개인생활환경/p1.jpg", "2": "1.Training/[원천]가구/p1.jpg",
    }  # fmt: skip


def test_a_folder_above_the_root_says_nothing_about_the_split(tmp_path: Path) -> None:
    tree(tmp_path / "train_disk", "라벨", 1)
    with pytest.raises(DataError, match="says whether this is training or validation data"):
        read(tmp_path / "train_disk")


def test_an_image_id_of_two_files_is_nobodys(tmp_path: Path) -> None:
    path = tree(tmp_path, "Training", 1, 2)
    content = json.loads(path.read_text("utf-8"))
    write_table(path, {**content, "images": [*content["images"], {"image_id": "p1", "image": "p2.jpg"}]})
    write_images(tmp_path, ["p1.jpg", "p2.jpg"])
    rows, left_out = read(tmp_path)
    assert [example.id for _, example in rows] == ["2"]
    assert left_out.listed == {"several pictures of that name": ["id 1: image id p1: p1.jpg or p2.jpg?"]}
