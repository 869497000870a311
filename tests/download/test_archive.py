"""Archives become folders: whole or not at all, and nothing hostile gets out of them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import time
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from kovqa_core.data.archive_members import decode_member_name
from kovqa_core.download import archive as archives
from kovqa_core.download import members
from kovqa_core.download.archive import UNPACK_RECEIPT, unpack_archive
from kovqa_core.errors import DataError, MachineError, SettingsError
from kovqa_core.progress import Progress

from tests.conftest import clean_env

FILES = {
    "라벨/annotation.json": b"\xef\xbb\xbf" + '{"질문": 1}'.encode(),
    "라벨/빈 파일.txt": b"",
    "images/1.jpg": bytes(range(256)) * 900,
}
NFD = unicodedata.normalize("NFD", "한글 폴더/그림.jpg")


def tar_bytes(files: dict[str, bytes], *infos: tarfile.TarInfo, kind: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in infos:
            tar.addfile(info)
    return buffer.getvalue()


def zip_bytes(files: Sequence[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zip:
        for name, data in files:
            zip.writestr(name, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != UNPACK_RECEIPT
    }


PACKED: dict[str, Callable[[], bytes]] = {
    "a.zip": lambda: zip_bytes(list(FILES.items())),
    "a.tar": lambda: tar_bytes(FILES),
    "a.pax.tar": lambda: tar_bytes(FILES, kind=tarfile.PAX_FORMAT),
    "a.tar.gz": lambda: gzip.compress(tar_bytes(FILES)),
    "a.tar.bz2": lambda: bz2.compress(tar_bytes(FILES)),
}


# ---------------------------------------------------------------------------------- what works


@pytest.mark.parametrize("name", PACKED)
def test_every_kind_is_unpacked_and_only_once(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, PACKED[name]())
    shown: list[Progress] = []
    files = unpack_archive(path, tmp_path / "새 폴더", shown.append)
    assert contents(tmp_path / "새 폴더") == FILES  # the byte-order mark is still there
    assert [file.relative_to(tmp_path / "새 폴더").as_posix() for file in files] == sorted(FILES)
    assert shown[-1].done == shown[-1].total != 0
    before = (tmp_path / "새 폴더").stat().st_ino
    assert unpack_archive(path, tmp_path / "새 폴더", lambda progress: pytest.fail("done twice")) == files
    assert (tmp_path / "새 폴더").stat().st_ino == before


def test_the_name_of_the_file_is_not_believed(tmp_path: Path) -> None:
    unpack_archive(write(tmp_path / "a.zip", PACKED["a.tar.gz"]()), tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_a_tar(tmp_path: Path, kind: int) -> None:
    files = {"긴 이름의 폴더/" * 12 + "그림.jpg": b"1", "b.txt": b"2"}
    unpack_archive(write(tmp_path / "a.tar", tar_bytes(files, kind=kind)), tmp_path / "out")
    assert contents(tmp_path / "out") == files


def test_names_of_korean_windows_and_of_macos_are_readable(tmp_path: Path) -> None:
    data = cp949_zip({"상_train_동물/질문.json": b"1"}, [(NFD, b"2"), ("windows\\path.txt", b"3")])
    unpack_archive(write(tmp_path / "a.zip", data), tmp_path / "out")
    nfc = unicodedata.normalize("NFC", NFD)
    assert contents(tmp_path / "out") == {
        "상_train_동물/질문.json": b"1",
        nfc: b"2",
        "windows/path.txt": b"3",
    }
    receipt = json.loads((tmp_path / "out" / UNPACK_RECEIPT).read_text("utf-8"))
    assert receipt["renamed"] == {nfc: NFD, "windows/path.txt": "windows\\path.txt"}


def cp949_zip(old: dict[str, bytes], new: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """A zip whose first names are in CP949, without the flag that says UTF-8."""
    stand_ins = {f"{number:0{len(name.encode('cp949'))}d}": name for number, name in enumerate(old)}
    data = zip_bytes([*zip(stand_ins, old.values(), strict=True), *new])
    for stand_in, name in stand_ins.items():
        data = data.replace(stand_in.encode(), name.encode("cp949"))
    return data


def test_a_name_in_no_korean_encoding_is_taken_as_the_zip_format_says() -> None:
    assert decode_member_name(b"caf\x82") == "café"


def test_cp949_names_in_a_tar(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", encoding="cp949", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("동물/질문.json"))
    unpack_archive(write(tmp_path / "a.tar", buffer.getvalue()), tmp_path / "out")
    assert contents(tmp_path / "out") == {"동물/질문.json": b""}


# ---------------------------------------------------------------------------------- volumes


@pytest.mark.parametrize("counted", [True, False])
def test_volumes_are_joined_by_number(tmp_path: Path, counted: bool) -> None:
    data, size = PACKED["a.zip"](), 97
    for number, offset in enumerate(range(0, len(data), size)):
        write(tmp_path / f"a.zip.part{number if counted else offset}", data[offset : offset + size])
    assert len(list(tmp_path.iterdir())) > 10  # so that text order and number order differ
    unpack_archive(tmp_path / "a.zip", tmp_path / "out")
    assert contents(tmp_path / "out") == FILES
    (tmp_path / f"a.zip.part{2 if counted else 2 * size}").unlink()
    with pytest.raises(DataError, match="volumes do not join"):
        unpack_archive(tmp_path / "a.zip.part0", tmp_path / "out2")


def split_zip(files: dict[str, bytes], size: int, zip64: bool) -> list[bytes]:
    """A zip of several disks, as Info-ZIP's `zip -s` writes it: places count from each disk's beginning."""
    data = bytearray(b"PK\7\x08" + zip_bytes(list(files.items())))
    end = data.rindex(b"PK\5\6")
    count, length, begin = struct.unpack_from("<HLL", data, end + 10)
    begin += 4
    position = begin
    for _ in range(count):
        name, extra, comment = struct.unpack_from("<HHH", data, position + 28)
        place = struct.unpack_from("<L", data, position + 42)[0] + 4
        struct.pack_into("<H", data, position + 34, place // size)
        struct.pack_into("<L", data, position + 42, place % size)
        position += 46 + name + extra + comment
    disks, tail = end // size, b""
    first, place = divmod(begin, size)
    if zip64:
        tail = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, disks, first, count, count, length, place)
        tail += struct.pack("<4sLQL", b"PK\6\7", disks, end % size, disks + 1)
    many = (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF) if zip64 else (count, length, place)
    data[end:] = tail + struct.pack("<4sHHHHLLH", b"PK\5\6", disks, first, many[0], *many, 0)
    return [bytes(data[at : at + size]) for at in range(0, disks * size, size)] + [
        bytes(data[disks * size :])
    ]


@pytest.mark.parametrize("zip64", [False, True])
def test_split_zips(tmp_path: Path, zip64: bool) -> None:
    files = {f"그림 {number}.bin": os.urandom(3000) for number in range(9)}
    *disks, last = split_zip(files, 4000, zip64)
    assert len(disks) > 3
    for number, data in enumerate(disks, 1):
        write(tmp_path / f"a.z{number:02d}", data)
    write(tmp_path / "a.zip", last)
    unpack_archive(tmp_path / "a.zip", tmp_path / "out")
    assert contents(tmp_path / "out") == files
    assert len(unpack_archive(tmp_path / "a.z01", tmp_path / "out")) == 9
    (tmp_path / "a.z02").unlink()
    with pytest.raises(DataError, match=r"one of its volumes .* is missing \(there are a.z01, a.z03"):
        unpack_archive(tmp_path / "a.zip", tmp_path / "out2")


# ---------------------------------------------------------------------------------- what is refused


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_info(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


NAMES = [
    (["../evil.txt"], "leaves the folder"),
    (["a/../../evil.txt"], "leaves the folder"),
    (["a\\..\\..\\evil.txt"], "leaves the folder"),
    (["/etc/evil.txt"], "absolute"),
    (["C:\\evil.txt"], "absolute"),
    (["c:evil.txt"], "absolute"),
    (["bad\x1bname"], "control characters"),
    (["가" * 86], "255 bytes"),
    (["Train/1.jpg", "train/2.jpg"], "only in case"),
    (["a.jpg", "A.JPG"], "only in case"),
    (["한.jpg", unicodedata.normalize("NFD", "한.jpg")], "same name as an earlier file"),
    (["a", "a/b"], "same name as an earlier file"),
    (["a/b", "a"], "same name as a folder"),
    ([UNPACK_RECEIPT], "same name as an earlier file"),
    (["./."], "no name"),
]


@pytest.mark.parametrize("packed", ["tar", "zip"])
@pytest.mark.parametrize(("names", "says"), NAMES)
def test_hostile_names_are_refused(tmp_path: Path, packed: str, names: list[str], says: str) -> None:
    files = [("good.txt", b"good"), *((name, b"evil") for name in names)]
    data = tar_bytes(dict(files)) if packed == "tar" else zip_bytes(files)
    refused(tmp_path, write(tmp_path / "a.x", data), rf"a\.x: member .* has .*{says}")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S", b"Z"]
)
def test_a_tar_with_anything_but_files_is_refused(tmp_path: Path, kind: bytes) -> None:
    data = tar_bytes({"good.txt": b"good"}, tar_info("strange", kind, "../../outside"))
    refused(tmp_path, write(tmp_path / "a.tar", data), r"member 'strange' has a type that is not unpacked")


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140777])
def test_a_zip_with_anything_but_files_is_refused(tmp_path: Path, mode: int) -> None:
    data = zip_bytes([("good.txt", b"good"), (zip_info("strange", mode), b"../../outside")])
    refused(tmp_path, write(tmp_path / "a.zip", data), r"member 'strange' has a type that is not unpacked")


def test_bombs_are_refused(tmp_path: Path) -> None:
    zeros = bytes(members.RATIO_FREE_BYTES + 1)
    refused(
        tmp_path, write(tmp_path / "a.zip", zip_bytes([("0", zeros)])), "member '0' unpacks to .* zip bomb"
    )
    refused(tmp_path, write(tmp_path / "a.tar.gz", gzip.compress(tar_bytes({"0": zeros}))), "zip bomb")
    refused(
        tmp_path, write(tmp_path / "b.tar.bz2", bz2.compress(tar_bytes({}) + zeros * 2)), "neither|zip bomb"
    )
    after = gzip.compress(tar_bytes({"a": b"1"}) + zeros)  # hidden behind the end
    refused(tmp_path, write(tmp_path / "c.tar.gz", after), "zip bomb")
    info = tar_info("huge")
    info.size = members.MAX_UNPACKED_BYTES + 1
    refused(tmp_path, write(tmp_path / "d.tar", info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)), "zip bomb")


def test_a_bomb_of_overlapping_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "RATIO_FREE_BYTES", 1 << 20)
    data = bytearray(zip_bytes([(f"{n:03d}", os.urandom(2000) + bytes(200_000)) for n in range(300)]))
    begin = struct.unpack_from("<L", data, data.rindex(b"PK\5\6") + 16)[0]
    last = data.rindex(b"PK\3\4", 0, begin)
    tail = data[begin:]  # the directory alone, all its members at the place of one
    for at in range(0, 300 * 49, 49):
        struct.pack_into("<L", tail, at + 42, 0)
    struct.pack_into("<L", tail, len(tail) - 6, begin - last)
    refused(
        tmp_path, write(tmp_path / "a.zip", bytes(data[last:begin] + tail)), r"a\.zip unpacks to .* zip bomb"
    )


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(members, "MAX_MEMBERS", 2)
    refused(tmp_path, write(tmp_path / name, PACKED[name]()), "more than 2 members")


def test_an_encrypted_zip_says_so(tmp_path: Path) -> None:
    data = bytearray(PACKED["a.zip"]())
    data[data.rindex(b"PK\1\2") + 8] |= 1
    refused(tmp_path, write(tmp_path / "a.zip", bytes(data)), "is encrypted")


def test_a_method_python_lacks_says_so(tmp_path: Path) -> None:
    data = PACKED["a.zip"]().replace(b"\x14\0\0\x08\x08\0", b"\x14\0\0\x08\x09\0")
    refused(tmp_path, write(tmp_path / "a.zip", data), r"member .* cannot be read \(.*compression")


@pytest.mark.parametrize("name", PACKED)
def test_a_cut_or_damaged_archive_is_an_error_at_every_byte(tmp_path: Path, name: str) -> None:
    whole = PACKED[name]()
    blocks = len(tar_bytes({"a": b""})) - 512  # what follows the two closing blocks is padding
    cuts = range(1, len(whole) - (blocks if name.endswith("tar") else 0), max(1, len(whole) // 40))
    for cut in cuts:
        refused(tmp_path, write(tmp_path / name, whole[:cut]), name)
    for at in range(0, len(whole), max(1, len(whole) // 40)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        write(tmp_path / name, bytes(damaged))
        try:  # a plain tar has no checksum of contents; nothing but our errors may come of it
            unpack_archive(tmp_path / name, tmp_path / f"out{at}")
        except DataError:
            assert not (tmp_path / f"out{at}").exists()


def test_a_wrong_checksum_names_the_member(tmp_path: Path) -> None:
    data = bytearray(PACKED["a.zip"]())
    data[data.index(b"images/1.jpg") + 20] ^= 1
    refused(
        tmp_path, write(tmp_path / "a.zip", bytes(data)), r"member 'images/1\.jpg' is damaged or cut short"
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"), (b"<!DOCTYPE html>", "is a web page"), (b"Rar!\x1a\7", "is a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive"), (b"hello", "is neither zip, tar"),
    ],
)  # fmt: skip
def test_something_else_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    refused(tmp_path, write(tmp_path / "a.zip", data), says)


def test_a_full_disk_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(members.shutil, "disk_usage", lambda path: usage)
    for name in PACKED:
        path = write(tmp_path / name, PACKED[name]())
        with pytest.raises(MachineError, match=r"needs .* kB, its disk has 1\.0 kB: .* are missing"):
            unpack_archive(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def refused(folder: Path, path: Path, says: str) -> None:
    """One clear error, and nothing left of the archive: not in the folder, not beside it."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError, match=says) as caught:
        unpack_archive(path, folder / "out")
    assert caught.value.hint
    assert sorted(folder.rglob("*")) == before


# ---------------------------------------------------------------------------------- again


def test_a_folder_with_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out" / "mine.txt", b"mine")
    with pytest.raises(SettingsError, match=r"was not unpacked from a\.zip"):
        unpack_archive(write(tmp_path / "a.zip", PACKED["a.zip"]()), tmp_path / "out")
    assert contents(tmp_path / "out") == {"mine.txt": b"mine"}


def test_a_newer_archive_replaces_what_the_older_left_but_not_what_was_changed(tmp_path: Path) -> None:
    unpack_archive(write(tmp_path / "a.zip", PACKED["a.zip"]()), tmp_path / "out")
    unpack_archive(write(tmp_path / "a.zip", zip_bytes([("new.txt", b"new")])), tmp_path / "out")
    assert contents(tmp_path / "out") == {"new.txt": b"new"}
    write(tmp_path / "out" / "mine.txt", b"mine")
    with pytest.raises(SettingsError, match="was changed"):
        unpack_archive(tmp_path / "a.zip", tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").exists()


def test_killed_at_any_moment_the_next_run_finishes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", zip_bytes([(f"{number}.bin", b"x" * 5000) for number in range(1500)]))
    out = tmp_path / "out"
    script = f"from pathlib import Path\nfrom {archives.__name__} import unpack\nprint(1, flush=True)\n"
    script += f"unpack(Path({str(path)!r}), Path({str(out)!r}))"
    for wait in (0.02, 0.1, 0.2, 0.3):
        process = subprocess.Popen(
            [sys.executable, "-c", script], env=clean_env(), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists() or len(contents(out)) == 1500
    assert len(unpack_archive(path, out)) == 1500
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.zip", "out"]
