"""Files appear whole or not at all; text is read in the encodings Korean data comes in."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import (
    atomic_file,
    make_folder,
    read_json,
    read_text,
    require_other_output,
    to_nfc,
    write_folder,
    write_json,
    write_text,
)


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# ---------------------------------------------------------------------------------- reading


def test_nfc_composes() -> None:
    assert to_nfc(unicodedata.normalize("NFD", "한글")) == "한글"


@pytest.mark.parametrize("data", ["예".encode(), b"\xef\xbb\xbf" + "예".encode(), "예".encode("cp949")])
def test_text_in_utf8_with_or_without_mark_and_cp949(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    assert read_text(tmp_path / "a.txt") == "예"


def test_text_in_neither_encoding_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n\xff\xff\xff\n")
    with pytest.raises(DataError, match=r"a\.txt:3: neither UTF-8 nor CP949"):
        read_text(tmp_path / "a.txt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nothing\.txt: No such file"):
        read_text(tmp_path / "nothing.txt")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a.json is empty"),
        (" \n", "a.json is empty"),
        ('{\n "a": 1,\n "b" 2}', "a.json:3: not valid JSON"),
    ],
)
def test_json_that_is_none(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError) as caught:
        read_json(tmp_path / "a.json")
    assert says in caught.value.message


def test_json_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"예": [1, None]})
    assert read_json(tmp_path / "a" / "b.json") == {"예": [1, None]}
    assert "예" in (tmp_path / "a" / "b.json").read_text("utf-8")


# ------------------------------------------------------------------------------ whole files


def write_half(path: Path, error: BaseException) -> None:
    with atomic_file(path) as stream:
        stream.write(b"half")
        raise error


def test_whole_file_replaces(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert everything(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whole_file_leaves_nothing_behind_on_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        write_half(tmp_path / "a.txt", error())
    assert everything(tmp_path) == []


def test_whole_file_keeps_the_old_one_on_an_error(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ValueError, match="stop"):
        write_half(tmp_path / "a.txt", ValueError("stop"))
    assert (tmp_path / "a.txt").read_text() == "old"
    assert everything(tmp_path) == ["a.txt"]


def test_a_file_in_the_way_of_a_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(SettingsError, match="cannot write"):
        write_text(tmp_path / "a" / "b.txt", "x")


# ---------------------------------------------------------------------------- whole folders


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
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "half.txt").write_text("half")
    write_folder(tmp_path / "out", fill)
    assert everything(tmp_path) == ["out", "out/a.txt", "out/inner", "out/inner/b.txt"]


def test_write_folder_follows_a_link_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write_folder(tmp_path / "out", fill)
    assert (tmp_path / "out").is_symlink()
    assert everything(tmp_path / "disk") == ["a.txt", "inner", "inner/b.txt"]


def test_a_folder_that_may_not_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    shut = tmp_path / "shut" if os.geteuid() else Path("/proc")  # root may write anywhere but there
    with pytest.raises(SettingsError, match="cannot write"):
        make_folder(shut / "out")


# -------------------------------------------------------------------------------- disk full

# A limit on the size of files makes the system refuse bytes as a full disk does.
_SMALL_DISK = """
import resource, sys
from pathlib import Path
from kovqa_core.errors import MachineError
from kovqa_core.files import write_folder, write_text

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


def test_an_output_is_never_one_of_its_inputs(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    require_other_output(tmp_path / "b", [tmp_path / "a"])
    (tmp_path / "hard").hardlink_to(tmp_path / "a")
    for same in (tmp_path / "a", tmp_path / "link", tmp_path / "hard", tmp_path / "x" / ".." / "a"):
        with pytest.raises(SettingsError, match="is an input"):
            require_other_output(same, [tmp_path / "b", tmp_path / "a"])


@pytest.mark.parametrize(
    ("marker", "name"),
    [("index.json", "val.jsonl"), ("kovqa.json", "model.safetensors"), ("run.yaml", "run.yaml")],
)
def test_an_output_is_no_file_of_an_index_a_model_or_a_run(tmp_path: Path, marker: str, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "answers of mine.jsonl").touch()
    if name != marker:
        require_other_output(tmp_path / name, [])  # of what folder, nobody knows
        (tmp_path / marker).touch()
    require_other_output(tmp_path / "answers of mine.jsonl", [])
    with pytest.raises(SettingsError, match=f"{marker} is beside it"):
        require_other_output(tmp_path / name, [])


def test_a_path_that_is_not_utf_8_comes_back_from_json(tmp_path: Path) -> None:
    for path in ("그림/1.png", os.fsdecode(b"\xb0\xed.png")):
        write_json(tmp_path / "a.json", {"image": path})
        assert read_json(tmp_path / "a.json") == {"image": path}
    write_json(tmp_path / "a.json", {"image": "그림"})
    assert "그림" in (tmp_path / "a.json").read_text("utf-8"), "readable where it can be"
