"""Files on disk: text in any encoding Korean data comes in, and writing that is whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from kovqa_core.errors import DataError, KovqaError, MachineError, SettingsError


def to_nfc(text: str) -> str:
    """Text in composed form: macOS archives spell 한 as three letters, everybody else as one."""
    return unicodedata.normalize("NFC", text)


# ---------------------------------------------------------------------------------- reading


def read_text(path: Path) -> str:
    """The text of a file in UTF-8 (with or without a byte-order mark) or CP949.

    Raises:
        DataError: the file cannot be opened, or is in neither encoding.
    """
    return decode_text(read_bytes(path), str(path))


def decode_text(data: bytes, name: str, line: int = 1) -> str:
    """Text of bytes in UTF-8 (with or without a byte-order mark) or CP949.

    Args:
        data: whole lines.
        name: what to call them in errors.
        line: number of the first.

    Raises:
        DataError: in neither encoding.
    """
    for encoding in ("utf-8-sig", "cp949"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            first = first_bad_line(data, error.start) + line - 1
    raise DataError(f"{name}:{first}: neither UTF-8 nor CP949 text", "save it as UTF-8 and try again")


def first_bad_line(data: bytes, position: int) -> int:
    """Line number (from 1) of a byte position."""
    return data.count(b"\n", 0, position) + 1


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; a `DataError` that names it when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from None


def read_json(path: Path) -> Any:
    """A JSON document; a `DataError` with line and column when it is none."""
    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path} is empty", "fetch or unpack it again")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg}, column {error.colno})",
            "fetch or unpack it again",
        ) from None


# ---------------------------------------------------------------------------------- writing


_DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNWRITABLE_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)


@contextlib.contextmanager
def disk_errors(path: Path, kept: str = "") -> Iterator[None]:
    """Turn what a disk refuses into one clear error: full (exit 4), not writable (exit 2).

    Args:
        path: what was being written.
        kept: what is still good, added to the message ("step-000100 is still whole").
    """
    try:
        yield
    except KovqaError:
        raise
    except OSError as error:
        if error.errno in _DISK_FULL_ERRNOS:
            raise disk_full_error(path, kept) from None
        if error.errno in _UNWRITABLE_ERRNOS:
            raise SettingsError(
                f"cannot write {path}: {error.strerror}", "choose another folder with -o"
            ) from None
        raise
    except Exception as error:  # safetensors and torch wrap the system's error in their own
        if re.search(r"os error (27|28|122)\b|No space left", str(error)):
            raise disk_full_error(path, kept) from None
        raise


def disk_full_error(path: Path, kept: str = "") -> MachineError:
    """The error for a full disk."""
    return MachineError(f"disk full while writing {path}" + (f"; {kept}" if kept else ""), "free some space")


def fsync_path(path: Path) -> None:
    """Hand a file or folder to the disk, so that it outlives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears complete or not at all.

    The bytes go to a neighbour first, are handed to the disk, then take the name.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        fsync_path(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_file(path) as stream:
        stream.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document in UTF-8, readable by people."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_folder(path: Path, fill: Callable[[Path], None], kept: str = "") -> None:
    """Write a folder that appears complete or not at all; `fill` puts the files into it."""
    path = path.resolve()  # a link is followed, so that its target is replaced
    part = path.with_name(path.name + ".part")
    with disk_errors(path, kept):
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            fill(part)
            for inside in sorted(part.rglob("*"), reverse=True):
                fsync_path(inside)
            fsync_path(part)
            old = path.with_name(path.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            if path.exists():
                path.rename(old)
            part.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        fsync_path(path.parent)


def require_empty(folder: Path) -> None:
    """See that a folder about to be written holds nothing, or is not there yet.

    Raises:
        SettingsError: it does, or it is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder} is not empty", "choose another folder with -o")


def make_folder(path: Path) -> Path:
    """Make a folder and see that something can be written into it."""
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".{os.getpid()}.part"
        probe.touch()
        probe.unlink()
    return path
