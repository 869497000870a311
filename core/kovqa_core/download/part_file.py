"""What a download leaves on disk: `NAME.part` with its notes, the receipt of a finished file, the lock.

`NAME.part` holds the bytes so far, `NAME.part.json` says which file they belong to. `.NAME.json` is the
receipt of a file that was checked. `.NAME.lock` is there while a process writes one of them. None of them
ever holds a header, a token or a signed address.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from kovqa_core.bounded_json import parse_json
from kovqa_core.download.checks import checksum_mismatch, file_checksums
from kovqa_core.errors import DataError
from kovqa_core.files import discard_partial_file, read_bytes, write_json
from kovqa_core.messages import message
from kovqa_core.output_lock import output_lock
from kovqa_core.progress import OnProgress, Progress, ignore_progress


@dataclass(frozen=True)
class PartNotes:
    """Which file the bytes of a `.part` belong to; as the first response said."""

    url: str
    validator: str  # strong ETag or Last-Modified, for If-Range; "" when the server gave none
    total: int  # bytes of the whole file; 0 when the server did not say


@dataclass(frozen=True)
class FileReceipt:
    """What is known of a file that was fetched and checked, as its receipt has it.

    Attributes:
        url: where it came from, without secrets.
        size: bytes.
        mtime_ns: when it was last changed: a file changed since is read and compared again.
        checksums: algorithm -> hexadecimal.
        accepted_mismatch: it is not the published file, and the user took it all the same.
        fetched: date and time, with time zone.
    """

    url: str
    size: int
    mtime_ns: int
    checksums: Mapping[str, str]
    accepted_mismatch: bool
    fetched: str


def part_file_path(target: Path) -> Path:
    """Where the bytes of an unfinished file are kept."""
    return target.with_name(target.name + ".part")


def _part_notes_path(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


def mismatch_path(target: Path) -> Path:
    """Where a file with a wrong checksum is kept aside."""
    return target.with_name(target.name + ".mismatch")


def damaged_path(target: Path) -> Path:
    """Where an archive that cannot be unpacked is kept aside."""
    return target.with_name(target.name + ".damaged")


def receipt_path(target: Path) -> Path:
    """Where a finished file's receipt lies."""
    return target.with_name(f".{target.name}.json")


def read_part_notes(target: Path) -> PartNotes | None:
    """The notes of an unfinished file; None when there are none, or a crash damaged them."""
    try:
        return PartNotes(**parse_json(read_bytes(_part_notes_path(target))))
    except (DataError, ValueError, TypeError):
        return None


def write_part_notes(target: Path, notes: PartNotes) -> None:
    """Write the notes of an unfinished file; always before its first byte."""
    write_json(_part_notes_path(target), asdict(notes))


def discard_part_notes(target: Path) -> None:
    """Remove the notes of an unfinished file: its bytes are worth nothing. The lock is held."""
    _part_notes_path(target).unlink(missing_ok=True)
    # What a process left that was killed while it wrote notes or receipt.
    for path in (_part_notes_path(target), receipt_path(target)):
        discard_partial_file(path)


def discard_part_file(target: Path) -> None:
    """Remove what was kept of an unfinished file."""
    discard_part_notes(target)
    part_file_path(target).unlink(missing_ok=True)


@contextlib.contextmanager
def download_lock(output: Path, on_progress: OnProgress = ignore_progress) -> Iterator[None]:
    """Hold an output for one process at a time; a second one waits as long as the first takes."""

    def show_holder(holder: str) -> None:
        on_progress(Progress(message("download.waiting-for-lock", "{holder}: waiting for it", holder=holder)))

    with output_lock(output, -1, show_holder):
        yield


@contextlib.contextmanager
def locked_part_file(target: Path, on_progress: OnProgress = ignore_progress) -> Iterator[IO[bytes]]:
    """The `.part` of a target, open for appending, for one process at a time."""
    # "a+b": made where it is missing, and never emptied by opening it.
    with download_lock(target, on_progress), part_file_path(target).open("a+b") as stream:
        try:
            yield stream
        finally:
            if os.fstat(stream.fileno()).st_size == 0:  # nothing came: leave nothing behind
                discard_part_file(target)


# --------------------------------------------------------------------------------- receipts


def read_receipt(target: Path) -> FileReceipt | None:
    """A finished file's receipt; None without one, or when a crash damaged it."""
    try:
        receipt = FileReceipt(**parse_json(read_bytes(receipt_path(target))))
    except (DataError, ValueError, TypeError):
        return None
    return receipt if isinstance(receipt.checksums, dict) else None


def write_receipt(
    target: Path, file: Path, url: str, checksums: Mapping[str, str], *, accepted: bool
) -> None:
    """Write down that a file was fetched and checked.

    Args:
        target: its name.
        file: the file itself, which may not have that name yet.
        url: where it came from, without secrets.
        checksums: its own.
        accepted: they were not the published ones, and the user took it all the same.
    """
    state, fetched = file.stat(), time.strftime("%Y-%m-%dT%H:%M:%S%z")
    receipt = FileReceipt(url, state.st_size, state.st_mtime_ns, dict(checksums), accepted, fetched)
    write_json(receipt_path(target), asdict(receipt))


def is_file_finished(
    target: Path, size: int | None, expected: Mapping[str, str], on_progress: OnProgress = ignore_progress
) -> bool:
    """Is the file on disk the one that would be fetched?

    A file that did not change since its receipt is believed; any other is read and compared.
    """
    if not target.is_file():
        return False
    state, receipt = target.stat(), read_receipt(target)
    checksums = receipt.checksums if receipt else {}
    # Size and time of change, as `make` does: 13 GB are not hashed again at every call.
    unchanged = receipt is not None and (receipt.size, receipt.mtime_ns) == (state.st_size, state.st_mtime_ns)
    if receipt and unchanged and receipt.accepted_mismatch:
        return True
    if size is not None and state.st_size != size:
        return False
    if not (unchanged and expected.keys() <= checksums.keys()):
        # With the receipt's own algorithms too: they show a change even where nothing is published.
        computed = file_checksums(target, {*expected, *checksums}, on_progress)
        if checksums and checksum_mismatch(computed, checksums):
            return False
        checksums = computed
    # Without receipt, size and checksum nothing says that the file is the published one.
    return bool(receipt or expected or size) and not checksum_mismatch(checksums, expected)
