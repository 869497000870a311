"""Folders appear whole or not at all; what killed processes left of them is brought back or removed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.files import write_text
from kovqa_core.progress import Progress
from kovqa_core.whole_folder import require_new_folder, write_folder, write_new_folder


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def fill(folder: Path) -> None:
    (folder / "a.txt").write_text("new")
    (folder / "inner").mkdir()
    (folder / "inner" / "b.txt").write_text("new")


def fail(folder: Path) -> None:
    fill(folder)
    raise ValueError("stop")


def test_write_folder_replaces_everything(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("old")
    write_folder(tmp_path / "out", fill)
    assert everything(tmp_path) == ["out", "out/a.txt", "out/inner", "out/inner/b.txt"]


def test_write_folder_makes_the_folders_above(tmp_path: Path) -> None:
    write_folder(tmp_path / "a" / "b" / "out", fill)
    assert everything(tmp_path / "a" / "b") == ["out", "out/a.txt", "out/inner", "out/inner/b.txt"]


def test_write_folder_leaves_nothing_behind_on_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"):
        write_folder(tmp_path / "out", fail)
    assert everything(tmp_path) == []


def test_write_folder_keeps_the_old_one_on_an_error(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", fill)
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="stop"):
        write_folder(tmp_path / "out", fail)
    assert everything(tmp_path) == before


def test_write_folder_clears_what_a_killed_run_left(tmp_path: Path) -> None:
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "half.txt").write_text("half")
    write_folder(tmp_path / "out", fill)
    assert everything(tmp_path) == ["out", "out/a.txt", "out/inner", "out/inner/b.txt"]


def test_write_folder_follows_a_link_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write_folder(tmp_path / "out", fill)
    assert (tmp_path / "out").is_symlink()
    assert everything(tmp_path / "disk") == ["a.txt", "inner", "inner/b.txt"]


# ------------------------------------------------------------------------------ killed, disturbed


@pytest.mark.parametrize("write", [write_folder, write_new_folder])
def test_the_old_folder_comes_back_after_a_kill_between_two_renames(
    tmp_path: Path, write: Callable[[Path, Callable[[Path], None]], None]
) -> None:
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "old.txt").write_text("old")
    with pytest.raises(ValueError, match="stop"):
        write(tmp_path / "out", fail)
    assert everything(tmp_path) == ["out", "out/old.txt"]


def test_an_old_folder_beside_the_new_one_goes(tmp_path: Path) -> None:
    (tmp_path / ".out.old").mkdir()
    write_folder(tmp_path / "out", fill)
    write_folder(tmp_path / "out", fill)
    assert everything(tmp_path) == ["out", "out/a.txt", "out/inner", "out/inner/b.txt"]


def test_the_users_own_copies_are_not_touched(tmp_path: Path) -> None:
    for name in ("out.old", "out.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    write_folder(tmp_path / "out", fill)
    write_folder(tmp_path / "out", fill)
    names = ["out", "out/a.txt", "out/inner", "out/inner/b.txt"]
    assert everything(tmp_path) == [
        *names[:1],
        "out.old",
        "out.old/mine.txt",
        "out.part",
        "out.part/mine.txt",
        *names[1:],
    ]


def test_a_failed_rename_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "out", fill)
    rename = Path.rename

    def interrupt(self: Path, target: Path) -> Path:
        if self.name == ".out.part":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "out", fill)
    assert everything(tmp_path) == ["out", "out/a.txt", "out/inner", "out/inner/b.txt"]


# ------------------------------------------------------------------------------------ new folders


def test_a_new_folder_may_be_empty_or_the_very_same(tmp_path: Path) -> None:
    out, notes = tmp_path / "out", list[Progress]()
    out.mkdir()
    write_new_folder(out, fill, notes.append)
    assert everything(out) == ["a.txt", "inner", "inner/b.txt"] and not notes
    before = (out / "a.txt").stat().st_ino
    write_new_folder(out, fill, notes.append)
    assert (out / "a.txt").stat().st_ino == before
    assert [note.is_note for note in notes] == [True] and "is there already" in notes[0].stage
    assert everything(tmp_path) == ["out", "out/a.txt", "out/inner", "out/inner/b.txt"]


@pytest.mark.parametrize("change", ["more", "less", "other", "file"])
def test_a_new_folder_never_replaces_another(tmp_path: Path, change: str) -> None:
    out = tmp_path / "out"
    if change == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        fill(out)
    if change == "more":
        (out / "mine.txt").write_text("mine")
    elif change == "less":
        (out / "inner" / "b.txt").unlink()
    elif change == "other":
        (out / "a.txt").write_text("NEW")
    before = everything(tmp_path)
    with pytest.raises(SettingsError, match="is not empty"):
        write_new_folder(out, fill)
    assert everything(tmp_path) == before
    with pytest.raises(SettingsError, match="is not empty"):
        require_new_folder(out, lambda folder: False)


# -------------------------------------------------------------------------------------- disk full

# A limit on the size of files makes the system refuse bytes as a full disk does.
_SMALL_DISK = """
import resource, sys
from pathlib import Path
from kovqa_core.errors import MachineError
from kovqa_core.files import write_text
from kovqa_core.whole_folder import write_folder

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder = Path(sys.argv[1])
jobs = [
    lambda: write_text(folder / "a.txt", "x" * 10_000),
    lambda: write_folder(folder / "out", lambda part: write_text(part / "b.txt", "x" * 10_000), "the old is whole"),
    lambda: write_folder(folder / "out", lambda part: (part / "b.txt").write_text("x" * 10_000), "the old is whole"),
]
for job in jobs:
    try:
        job()
    except MachineError as error:
        print(error.exit_code, error.message)
"""


def test_a_full_disk_is_one_clear_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    write_folder(tmp_path / "out", fill)
    before = everything(tmp_path)
    command = [sys.executable, "-c", _SMALL_DISK, str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    limit = "would be larger than a file may be here: 4,096 bytes (ulimit -f)"
    assert lines[0] == f"4 {tmp_path / 'a.txt'} {limit}"
    assert all(line.startswith("4 ") and limit in line for line in lines)
    assert lines[2].endswith("; the old is whole")
    assert everything(tmp_path) == before
    assert (tmp_path / "a.txt").read_text() == "old"
