"""Files appear whole or not at all; text is read in the encodings Korean data comes in."""

from __future__ import annotations

import os
import threading
import time
import unicodedata
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import (
    atomic_file,
    make_folder,
    open_file,
    read_bytes,
    read_json,
    read_text,
    require_other_output,
    to_nfc,
    write_json,
    write_text,
)


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# ---------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/dev/zero", "it is a device"), ("/dev/full", "it is a device"), (".", "it is a folder"),
        ("표.csv", "symbolic links"), ("not-there", "No such file"),
    ],
)  # fmt: skip
def test_what_stands_in_the_place_of_a_file_is_named_and_not_read(
    tmp_path: Path, target: str, reason: str
) -> None:
    path = tmp_path / "표.csv"
    path.symlink_to(target)
    for read in (open_file, read_bytes, read_text, read_json):
        with pytest.raises(DataError, match=rf"표\.csv: .*{reason}"):
            read(path)


def test_a_pipe_is_read_and_one_without_a_writer_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "관")
    assert read_bytes(tmp_path / "관") == b""
    reading, writing = os.pipe()  # as a shell's <(…)
    threading.Timer(0.2, lambda: (os.write(writing, b"1"), os.close(writing))).start()
    assert read_bytes(Path(f"/dev/fd/{reading}")) == b"1"
    os.close(reading)


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


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.part").write_text("half of a file that is longer than the new one")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert everything(tmp_path) == ["a.txt"]


def test_a_link_is_followed_as_a_shell_does(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.txt").symlink_to(tmp_path / "disk" / "b.txt")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "disk" / "b.txt").read_text() == "new"
    assert everything(tmp_path) == ["a.txt", "disk", "disk/b.txt"]


@pytest.mark.parametrize("kind", ["link", "hard link", "folder", "pipe"])
def test_what_lies_under_the_partial_name_and_is_not_ours_stays(tmp_path: Path, kind: str) -> None:
    other, partial_file = tmp_path / "other.txt", tmp_path / ".a.txt.part"
    other.write_text("somebody's")
    if kind == "link":
        partial_file.symlink_to(other)
    elif kind == "hard link":
        partial_file.hardlink_to(other)
    elif kind == "folder":
        partial_file.mkdir()
    else:
        os.mkfifo(partial_file)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert other.read_text() == "somebody's"
    assert everything(tmp_path) == [".a.txt.part", "a.txt", "other.txt"]


def test_two_writers_of_one_file_wait_for_each_other(tmp_path: Path) -> None:
    path, order = tmp_path / "a.txt", []

    def write_second() -> None:
        write_text(path, "second")
        order.append("second")

    with atomic_file(path) as stream:
        thread = threading.Thread(target=write_second)
        thread.start()
        stream.write(b"fir")
        time.sleep(0.1)
        stream.write(b"st")
        order.append("first")
    assert path.read_text() in ("first", "second")  # the other may have been quick
    thread.join(10)
    assert order == ["first", "second"]
    assert path.read_text() == "second"
    assert everything(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["a" * 254, "folder", "pipe", "link"])
def test_a_name_that_cannot_be_is_explained(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with pytest.raises(SettingsError, match="cannot write"):
        write_text(tmp_path / name, "x")
    assert everything(tmp_path) == ["folder", "link", "pipe"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_that_may_not_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    shut = tmp_path / "shut" if os.geteuid() else Path("/proc")  # root may write anywhere but there
    with pytest.raises(SettingsError, match="cannot write"):
        make_folder(shut / "out")


# ------------------------------------------------------------------------------------ outputs


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
