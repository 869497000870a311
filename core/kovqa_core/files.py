"""Files on disk: text in the encodings Korean data comes in, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob
import hashlib
import json
import os
import re
import secrets
import stat
import time
import unicodedata
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from kovqa_core.bounded_json import MAX_DOCUMENT_BYTES, parse_json
from kovqa_core.errors import DataError, KovqaError, SettingsError, with_near_files
from kovqa_core.file_lock import SAFE_FLAGS, lock_file
from kovqa_core.messages import Message, message
from kovqa_core.messages.system_reasons import system_reason
from kovqa_core.paths import kovqa_home
from kovqa_core.storage_limits import STORAGE_ERRNOS, storage_error
from kovqa_core.system_support import MOVES_OPEN_FILES, owner_id
from kovqa_core.text_encoding import decode_text


def to_nfc(text: str) -> str:
    """Text in composed form: macOS archives spell 한 as three code points, all others as one."""
    return unicodedata.normalize("NFC", text)


# ---------------------------------------------------------------------------------- reading


_PROCESS_LIMIT_ERRNOS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # `process_limits` names them


def open_file(path: Path) -> BufferedReader:
    """A file, opened to be read; all files that users name are opened here.

    A pipe may stand in its place, as a shell's `<(…)` does; one that nobody writes to is an empty file, where
    `open` would wait for ever. A device never is: /dev/zero has no end.

    Raises:
        DataError: it is not there, may not be read, or is a folder or a device.
        OSError: this process may open no more files: no fault of the file, which nobody leaves out then.
    """
    with _read_errors(path):
        mode = path.stat().st_mode  # before it is opened: with some devices that alone does something
        if stat.S_ISREG(mode) or stat.S_ISFIFO(mode):
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
            if stat.S_ISFIFO(mode):
                os.set_blocking(handle, True)
            return os.fdopen(handle, "rb")
    raise _cannot_read_error(path, _special_file(mode))


@contextlib.contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Turn what a disk or a network refuses into a `DataError`; a limit of this process passes through."""
    try:
        yield
    except OSError as error:
        if error.errno in _PROCESS_LIMIT_ERRNOS:
            raise
        raise _cannot_read_error(path, system_reason(error)) from None
    except ValueError as error:  # a NUL in the name
        raise _cannot_read_error(path, str(error)) from None


def _special_file(mode: int) -> Message:
    """What stands at a path in place of a file, by `st_mode`."""
    if stat.S_ISDIR(mode):
        return message("files.is-folder", "it is a folder")
    return message("files.is-special", "it is a device, a pipe or a socket")


def _cannot_read_error(path: Path, reason: str) -> DataError:
    problem = message("files.cannot-read", "cannot read {path}: {reason}", path=path, reason=reason)
    return DataError(
        problem if os.path.lexists(path) else with_near_files(problem, path),
        message("files.cannot-read.hint", "check the path"),
    )


def real_path(path: Path) -> Path:
    """The path with its links followed, as `Path.resolve`; links that lead in a circle stay what they are."""
    return Path(os.path.realpath(path))


def read_text(path: Path, most_bytes: int | None = None) -> str:
    """The text of a file in one of the encodings of `text_encoding`.

    Args:
        path: the file.
        most_bytes: a larger file is refused before it is read; None: any size.

    Raises:
        DataError: the file cannot be opened, is too large, or is in none of the encodings.
    """
    return decode_text(read_bytes(path, most_bytes), str(path))


def read_bytes(path: Path, most_bytes: int | None = None) -> bytes:
    """The bytes of a file; a `DataError` that names it when it cannot be read, or has more than `most_bytes`."""
    with open_file(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if most_bytes is not None and size > most_bytes:
            raise DataError(
                message(
                    "files.too-large", "{path} has {size:,} bytes, more than the {most:,} that such a file may have",
                    path=path, size=size, most=most_bytes,
                ),
                message("files.cannot-read.hint", "check the path"),
            )  # fmt: skip
        with _read_errors(path):
            return stream.read()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits; read in blocks. Errors as of `open_file`."""
    with open_file(path) as stream, _read_errors(path):
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """A JSON document, bounded by `bounded_json`; a `DataError` with line and column where it is not JSON."""
    text = read_text(path, MAX_DOCUMENT_BYTES)
    hint = message("files.bad-json.hint", "download or unpack it again")
    if not text.strip():
        raise DataError(message("files.empty", "{path} is empty", path=path), hint)
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise DataError(
            message(
                "files.bad-json", "{path}:{line}: not valid JSON ({reason}, column {column})",
                path=path, line=error.lineno, reason=error.msg, column=error.colno,
            ),
            hint,
        ) from None  # fmt: skip
    except ValueError as error:  # nested too deep, or too long a number
        raise DataError(
            message(
                "files.unreadable-json", "{path}: not readable as JSON ({reason})", path=path, reason=error
            ),
            hint,
        ) from None


# ---------------------------------------------------------------------------------- writing


_UNWRITABLE_ERRNOS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT,
    errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip
_PARTIAL_FILE_SECONDS = 20.0  # another process may write the same file for so long


@contextlib.contextmanager
def disk_errors(path: Path, still_good: str = "") -> Iterator[None]:
    """Turn what a disk refuses into one clear error: full (exit 4), not writable (exit 2).

    Args:
        path: what was being written.
        still_good: what a full disk has not harmed, for the message ("step-000100 is still whole").

    Raises:
        MachineError: a limit is reached, which is named with its disk (`storage_limits`).
        SettingsError: the path cannot be written.
    """
    try:
        yield
    except KovqaError:
        raise
    except OSError as error:
        if error.errno in STORAGE_ERRNOS:
            raise storage_error(path, error.errno, still_good, error.filename) from None
        if error.errno in _UNWRITABLE_ERRNOS:
            reason = system_reason(error)
            problem = message("files.cannot-write", "cannot write {path}: {reason}", path=path, reason=reason)
            raise SettingsError(problem, _other_folder_hint(path)) from None
        raise
    except Exception as error:
        number = _system_error_number(error)
        if number in STORAGE_ERRNOS:
            raise storage_error(path, number, still_good) from None
        raise


def _other_folder_hint(path: Path) -> Message:
    """Where to write instead: kovqa's own folder is moved by a variable, any other by -o."""
    if path.absolute().is_relative_to(kovqa_home().absolute()):
        return message(
            "files.other-home.hint", "set KOVQA_HOME to a folder that can be written ({home} cannot)",
            home=kovqa_home(),
        )  # fmt: skip
    if not MOVES_OPEN_FILES and path.is_file():  # as Excel has a table
        return message("files.open-elsewhere.hint", "close it in other programs, or choose another -o")
    return message("files.other-folder.hint", "choose another folder with -o")


def _system_error_number(error: Exception) -> int | None:
    """What the system said to a library: safetensors (Rust) and torch (C++) leave only the text of it."""
    text = str(error)
    if match := re.search(r"os error (\d+)\b", text):
        return int(match[1])
    return next((number for number in STORAGE_ERRNOS if os.strerror(number) in text), None)


def fsync_path(path: Path) -> None:
    """Hand a file or folder to the disk, so that it outlives a power cut; Windows does it for files alone."""
    if not MOVES_OPEN_FILES and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if MOVES_OPEN_FILES else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears complete or not at all; of a link, what it points to.

    The bytes go to a file beside it, in the same folder because only a rename within one file system
    is atomic; are handed to the disk, or a power cut could leave the new name with no bytes; and then
    take the name.
    """
    target = real_path(path)
    with disk_errors(path):
        _require_replaceable(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial_file, descriptor = _open_partial_file(target)
        with os.fdopen(descriptor, "wb") as stream:
            try:
                with disk_errors(path):  # before the partial file, and its share of the disk, is gone
                    yield stream
                    stream.flush()
                    os.fsync(stream.fileno())
                if not MOVES_OPEN_FILES:
                    stream.close()
                partial_file.replace(target)
            except BaseException:  # Ctrl-C too
                if not MOVES_OPEN_FILES:
                    with contextlib.suppress(OSError):
                        stream.close()
                partial_file.unlink(missing_ok=True)  # while it is locked: later it may be another's
                raise
        fsync_path(target.parent)  # the rename is an entry of the folder


def _require_replaceable(path: Path) -> None:
    """Refuse what is not a file: root's /dev/null would be one from then on, for every program of the machine."""
    try:
        mode = path.stat().st_mode
    except OSError:  # it is not there; else writing it says what is wrong
        return
    if not stat.S_ISREG(mode):
        raise SettingsError(
            message(
                "files.cannot-write", "cannot write {path}: {reason}", path=path, reason=_special_file(mode)
            ),
            message("files.not-a-file.hint", "name a file"),
        )


def _open_partial_file(path: Path) -> tuple[Path, int]:
    """The empty file, locked, whose bytes become those of `path`.

    It has one name, `.NAME.part`, so that what a killed process left is written over by the next one; the lock,
    which ends with its process, keeps two at once apart, on any hosts. Where an open file cannot take its name, the
    lock would be lost before that, and each process has a name of its own.
    """
    partial_file = path.with_name(f".{path.name}.part")
    end = time.monotonic() + _PARTIAL_FILE_SECONDS
    with contextlib.suppress(OSError):  # no locks here, or a folder, a link or another user's file in the way
        if not MOVES_OPEN_FILES:
            raise OSError
        while (descriptor := lock_file(partial_file)) is None:
            if time.monotonic() > end:
                raise SettingsError(
                    message("files.being-written", "another process is writing {path}", path=path),
                    message("files.being-written.hint", "wait until it has ended"),
                )
            time.sleep(0.01)
        state = os.fstat(descriptor)
        # Of two names the other one's bytes would go; another user's file would stay another user's.
        if stat.S_ISREG(state.st_mode) and state.st_nlink == 1 and state.st_uid == owner_id():
            os.truncate(descriptor, 0)
            return partial_file, descriptor
        os.close(descriptor)
    partial_file = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    return partial_file, os.open(partial_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE_FLAGS, 0o666)


def discard_partial_file(path: Path) -> None:
    """Remove what a killed process left of a file that will not be written now; nobody else may be writing it."""
    path.with_name(f".{path.name}.part").unlink(missing_ok=True)
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        stale.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_file(path) as stream:
        stream.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document in UTF-8, readable by people."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """The text that `write_json` writes."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    try:
        text.encode()
    except UnicodeEncodeError:  # a path that is not UTF-8: only JSON's own escapes bring it back
        text = json.dumps(value, indent=1)
    return text + "\n"


# What makes a folder an index, a checkpoint or a run, and the files in it that no output may replace.
_KEPT_FILES = {
    "index.json": ("index.json", "answers.txt", "train.jsonl", "val.jsonl", "test.jsonl", "*.offsets"),
    "kovqa.json": ("kovqa.json", "*config.json", "*.safetensors", "*.bin", "answers.txt", "tokenizer*"),
    "run.yaml": (
        "run.yaml",
        "manifest.json",
        "result.json",
        "error.json",
        "log.jsonl",
        "val_samples.jsonl",
        "last",
        "best",
    ),
}


def require_other_output(output: Path, inputs: Iterable[Path]) -> None:
    """Check that a file about to be written is none of those it is made from, and no file of an index or model.

    Args:
        output: the file.
        inputs: files; links to the same bytes, symbolic or hard, are the same.

    Raises:
        SettingsError: it is one; no --force helps.
    """
    resolved = real_path(output)
    if any(resolved == real_path(path) or _is_same_file(output, path) for path in inputs):
        raise SettingsError(
            message("files.output-is-input", "{output} is an input: it would be overwritten", output=output),
            message("files.output-is-input.hint", "choose another file with -o"),
        )
    for marker, patterns in _KEPT_FILES.items():
        is_kept = any(fnmatch.fnmatch(resolved.name, pattern) for pattern in patterns)
        if is_kept and resolved.is_file() and resolved.with_name(marker).is_file():
            raise SettingsError(
                message(
                    "files.output-is-kept",
                    "{output} belongs to an index, a model or a run ({marker} is beside it): it would be overwritten",
                    output=output,
                    marker=marker,
                ),
                message("files.output-is-input.hint", "choose another file with -o"),
            )


def _is_same_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there
        return False


def make_folder(path: Path) -> Path:
    """Make a folder and check that something can be written into it.

    Raises:
        SettingsError: it cannot be written.
        MachineError: the disk is full.
    """
    import tempfile

    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # on Linux without a name, which a kill would leave behind
            pass
    return path
