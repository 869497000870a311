"""Folders as people fill them."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.data import folder_walk
from kovqa_core.data.folder_walk import walk_files
from kovqa_core.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_files_of_systems_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.png", "a/1.png", ".DS_Store", "a/._1.png", "__MACOSX/a/1.png", "Thumbs.db", "a/THUMBS.DB",
          "desktop.ini", "@eaDir/1.png", "dataset_info.json", ".cache/huggingface/1.json", "_1.png")  # fmt: skip
    assert list(walk_files(tmp_path)) == ["_1.png", "a/1.png", "b/2.png"]


def test_a_linked_folder_is_walked_once_and_never_in_a_circle(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "a/1.png", "a/deep/2.png")
    disk = touch(tmp_path / "disk", "3.png", "in/4.png")
    for link, target in {
        "0 a": root / "a",
        "up": tmp_path,
        "a/deep/loop": root,
        "z": disk,
        "y": disk,
        "x": disk / "in",
    }.items():
        (root / link).symlink_to(target)
    (root / "file.png").symlink_to(disk / "3.png")
    (root / "gone.png").symlink_to(tmp_path / "gone")
    (root / "self").symlink_to(root / "self")
    # Under its own name where it has one below the root, else under that of its first link.
    assert list(walk_files(root)) == [
        "file.png",
        "a/1.png",
        "a/deep/2.png",
        "up/disk/3.png",
        "up/disk/in/4.png",
    ]
    (root / "up").unlink()
    assert list(walk_files(root))[3:] == ["x/4.png", "y/3.png"]


def test_a_folder_that_cannot_be_read_is_no_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.png", "b/2.png")
    scan = folder_walk._scan_folder

    def refuse(folder: str) -> tuple[list[str], list[str], list[str]]:
        if folder.endswith("a"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(folder_walk, "_scan_folder", refuse)
    with pytest.raises(DataError, match=r"cannot read .*a: Permission denied"):
        list(walk_files(tmp_path))
    assert [below for below, _ in folder_walk.walk_folders(tmp_path, skip_unreadable=True)] == ["", "b"]
    with pytest.raises(DataError, match="No such file"):
        list(walk_files(tmp_path / "없음"))
