"""What bytes are: the kind of a file by its first bytes, and its checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from kovqa_core.files import open_file
from kovqa_core.messages import message
from kovqa_core.progress import OnProgress, Progress, ignore_progress

HEAD_BYTES = 512  # bytes that tell the kind of any file we know
_HASH_BLOCK_BYTES = 1 << 20

# Kind -> (offset, bytes at that offset). A torch file is a zip.
FILE_MAGIC: dict[str, tuple[tuple[int, bytes], ...]] = {
    "zip": ((0, b"PK\x03\x04"), (0, b"PK\x05\x06")),
    "torch": ((0, b"PK\x03\x04"),),
    "bzip2": ((0, b"BZh"),),
    "gzip": ((0, b"\x1f\x8b"),),
    "tar": ((257, b"ustar"),),
    "json": ((0, b"{"), (0, b"[")),
}


def has_magic(head: bytes, kind: str) -> bool:
    """Do a file's first `HEAD_BYTES` look like this kind? Every file is of the kind ""."""
    if kind == "json":
        head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return not kind or any(head[at : at + len(magic)] == magic for at, magic in FILE_MAGIC[kind])


def is_web_page(head: bytes) -> bool:
    """Is this the beginning of an HTML or XML document instead of a file?"""
    # S3 and its like answer with XML; `<error>` comes without a declaration too.
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<error>"))


def file_checksums(
    path: Path, algorithms: Iterable[str] = (), on_progress: OnProgress = ignore_progress
) -> dict[str, str]:
    """Checksums of a file in hexadecimal, sha256 always among them, in one reading.

    Args:
        algorithms: md5, sha1, sha256, or "git" (sha1 of a git blob: the hub's ETag of small files).
        on_progress: called with the bytes read.
    """
    total, done = path.stat().st_size, 0
    stage = message("download.checking", "checking {file}", file=path.name.removesuffix(".part"))
    hashes = {name: _new_hash(name, total) for name in sorted({"sha256", *algorithms})}
    with open_file(path) as stream:
        while block := stream.read(_HASH_BLOCK_BYTES):
            done += len(block)
            for each in hashes.values():
                each.update(block)
            on_progress(Progress(stage, done, total, "bytes"))
    return {name: each.hexdigest() for name, each in hashes.items()}


def _new_hash(name: str, size: int) -> hashlib._Hash:
    # Git hashes a header with the length before the bytes, so the file's size must be known first.
    if name == "git":
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return hashlib.new(name, usedforsecurity=False)


def checksum_mismatch(computed: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """The first checksum that is not as expected, as text; empty when all agree."""
    for name, value in expected.items():
        if computed.get(name, "").lower() != value.lower():
            return message(
                "download.checksum-mismatch",
                "{algorithm} is {computed}, published is {expected}",
                algorithm=name,
                computed=computed.get(name, "unknown"),
                expected=value.lower(),
            )
    return ""


def size_mismatch(size: int, expected: int | None) -> str:
    """That a file's size is not the published one, as text; empty when it is, or none is published."""
    if expected is None or size == expected:
        return ""
    return message(
        "download.size-mismatch", "{size:,} bytes, published are {expected:,}", size=size, expected=expected
    )


def format_bytes(size: float) -> str:
    """A number of bytes for people: 13.5 GB."""
    if size < 1000:
        return f"{size:.0f} bytes"
    power = min(4, (len(f"{size:.0f}") - 1) // 3)
    return f"{size / 1000**power:.1f} {' kMGT'[power]}B"
