"""What a download leaves on disk: `NAME.part` with its notes, the receipt of a finished file, the lock.

`NAME.part` holds the bytes so far, and is itself what a running kovqa locks; `NAME.part.json` says
which file they belong to. `.NAME.json` is the receipt of a file that was checked. None of them ever
holds a header, a token or a signed address.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from kovqa_core.download.checks import checksum_mismatch, file_checksums
from kovqa_core.files import write_json
from kovqa_core.net.request import DownloadProgress

_LOCK_POLL_SECONDS = 0.2  # seconds between two looks at a lock held by another process


@dataclass(frozen=True)
class PartNotes:
    """Which file the bytes of a `.part` belong to; as the first answer said."""

    url: str
    validator: str  # strong ETag or Last-Modified, for If-Range; "" when the server gave none
    total: int  # bytes of the whole file; 0 when the server did not say


def part_file_path(target: Path) -> Path:
    """Where the bytes of an unfinished file are kept."""
    return target.with_name(target.name + ".part")


def _part_notes_path(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


def mismatch_path(target: Path) -> Path:
    """Where a file with a wrong checksum is kept aside."""
    return target.with_name(target.name + ".mismatch")


def receipt_path(target: Path) -> Path:
    """Where a finished file's receipt lies."""
    return target.with_name(f".{target.name}.json")


def read_part_notes(target: Path) -> PartNotes | None:
    """The notes of an unfinished file; None when there are none, or a crash damaged them."""
    try:
        return PartNotes(**json.loads(_part_notes_path(target).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_part_notes(target: Path, notes: PartNotes) -> None:
    """Write the notes of an unfinished file; always before its first byte."""
    write_json(_part_notes_path(target), asdict(notes))


def discard_part_file(target: Path, part: bool = True) -> None:
    """Remove what was kept of an unfinished file."""
    _part_notes_path(target).unlink(missing_ok=True)
    if part:
        part_file_path(target).unlink(missing_ok=True)


@contextlib.contextmanager
def locked_part_file(target: Path, told: DownloadProgress | None = None) -> Iterator[IO[bytes]]:
    """The `.part` of a target, open for reading and writing, for one process at a time.

    A second process waits. The lock dies with its process, so nothing is ever left locked.
    """
    import fcntl

    target.parent.mkdir(parents=True, exist_ok=True)
    waited = False
    while True:
        stream = os.fdopen(os.open(part_file_path(target), os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            if told and not waited:
                told(0, 0, f"another kovqa is fetching {target.name}: waiting for it")
            waited = True
            time.sleep(_LOCK_POLL_SECONDS)
            continue
        if _same_file(stream, part_file_path(target)):
            break
        stream.close()  # the other process finished it and gave it its name: look again
    with stream:
        try:
            yield stream
        finally:
            if os.fstat(stream.fileno()).st_size == 0 and _same_file(stream, part_file_path(target)):
                discard_part_file(target)  # nothing came: leave nothing behind


def _same_file(stream: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


# --------------------------------------------------------------------------------- receipts


def read_receipt(target: Path) -> dict[str, Any]:
    """A finished file's receipt: url, size in bytes, mtime_ns, checksums, fetched; empty without one."""
    try:
        found = json.loads(receipt_path(target).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("checksums"), dict) else {}


def write_receipt(target: Path, file: Path, url: str, sums: Mapping[str, str], accepted: bool) -> None:
    """Write down that a file was fetched and checked.

    Args:
        target: its name.
        file: the file itself, which may not have that name yet.
        url: where it came from, without secrets.
        sums: its checksums.
        accepted: its checksum was not the published one, and the user took it all the same.
    """
    state = file.stat()
    write_json(
        receipt_path(target),
        {
            "url": url,
            "size": state.st_size,
            "mtime_ns": state.st_mtime_ns,
            "checksums": dict(sums),
            "accepted_mismatch": accepted,
            "fetched": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        },
    )


def is_file_finished(
    target: Path, size: int | None, expected: Mapping[str, str], told: DownloadProgress | None
) -> bool:
    """Is the file here the one that would be fetched?

    A file that did not change since its receipt is believed; any other is read and compared.
    """
    if not target.is_file():
        return False
    state, receipt = target.stat(), read_receipt(target)
    sums: dict[str, str] = receipt.get("checksums", {})
    as_left = receipt.get("size") == state.st_size and receipt.get("mtime_ns") == state.st_mtime_ns
    if as_left and receipt.get("accepted_mismatch"):
        return True
    if size is not None and state.st_size != size:
        return False
    if not (as_left and expected.keys() <= sums.keys()):
        found = file_checksums(target, {*expected, *sums}, told)
        if sums and checksum_mismatch(found, sums):
            return False
        sums = found
    return bool(receipt or expected or size) and not checksum_mismatch(sums, expected)
