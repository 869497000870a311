"""One downloader: an address -> a file that is whole and checked, or a part that can be resumed.

Follows docs/sources/datasets.md, D1 to D5: resumes only what is provably the same file, believes no
status 200 alone, and writes down no secret. Single requests and patience are `request.py`'s.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import httpx2

from kovqa_core.download import part_file as kept
from kovqa_core.download.checks import (
    HEAD_BYTES,
    checksum_mismatch,
    file_checksums,
    format_bytes,
    has_magic,
    is_web_page,
)
from kovqa_core.download.part_file import (
    PartNotes,
    discard_part_file,
    locked_part_file,
    mismatch_path,
    part_file_path,
    read_part_notes,
)
from kovqa_core.errors import AssetError, MachineError
from kovqa_core.files import disk_errors, fsync_path
from kovqa_core.net.pages import page_text
from kovqa_core.net.request import (
    HARMLESS_HEADERS,
    DownloadProgress,
    Interrupted,
    RemoteFile,
    redact_url,
    retry_request,
    stream_request,
)


def fetch_file(
    remote: RemoteFile, target: Path, told: DownloadProgress | None = None, allow_mismatch: bool = False
) -> Path:
    """Bring a file; resume what an earlier attempt left; do nothing when it is here already.

    Args:
        target: where it shall lie; appears whole and checked, or not at all.
        allow_mismatch: take it although its size or checksum is not the published one.

    Raises:
        AssetError: it cannot be had (exit 5; what came so far is kept), or is not the published file.
        MachineError: the disk is too small.
    """
    with disk_errors(target, "what came so far is kept"), locked_part_file(target, told) as part:
        if kept.is_file_finished(target, remote.size, remote.checksums, _checking_progress(target, told)):
            discard_part_file(target)
            return target
        aside = mismatch_path(target)
        if allow_mismatch and aside.is_file():
            discard_part_file(target)
            aside.replace(part_file_path(target))
        else:
            _transfer_from_any(remote, target, part, told, allow_mismatch)
        fsync_path(part_file_path(target))
        _finish_file(remote, target, told, allow_mismatch)
    return target


def _checking_progress(target: Path, told: DownloadProgress | None) -> Callable[..., None]:
    return lambda done, total, note="": told(done, total, f"checking {target.name}") if told else None


def _transfer_from_any(
    remote: RemoteFile, target: Path, part: IO[bytes], told: DownloadProgress | None, allow_mismatch: bool
) -> None:
    """From the address or, when that fails for good, from its mirrors."""
    harmless = {name: value for name, value in remote.headers.items() if name.lower() in HARMLESS_HEADERS}
    mirrors = [dataclasses.replace(remote, url=url, headers=harmless) for url in remote.mirrors]
    for place, other in itertools.zip_longest((remote, *mirrors), mirrors):
        try:
            attempt = functools.partial(_transfer_once, place, target, part, told, allow_mismatch)
            retry_request(attempt, told, lambda: _partial_size(part))
            break
        except AssetError as error:
            if other is None:
                raise
            if told:
                told(0, 0, f"{error.message}; trying {redact_url(other.url)}")


def _partial_size(part: IO[bytes]) -> int:
    return os.fstat(part.fileno()).st_size


def _transfer_once(
    remote: RemoteFile, target: Path, part: IO[bytes], told: DownloadProgress | None, allow_mismatch: bool
) -> None:
    """One attempt: go on where the part ends if that is provably possible, else from the start."""
    have, notes = _partial_size(part), read_part_notes(target)
    if notes and notes.url != remote.url and not remote.checksums:
        notes = None  # bytes of two addresses are only mixed where a checksum proves the result
    if notes and have == notes.total > 0:
        return
    headers = {}
    if notes and 0 < have < notes.total:
        headers["Range"] = f"bytes={have}-"
        if notes.validator and notes.url == remote.url:
            headers["If-Range"] = notes.validator
    ask = remote.ask or stream_request
    with ask(remote, headers=headers, accept=(200, 206, 416) if headers else (200,)) as response:
        if response.status_code == 200:
            chunks = _begin_transfer(response, remote, target, part, allow_mismatch)
        elif notes and _is_continuation(response, have, notes, remote):
            chunks = response.iter_raw()
        else:  # 416, or a 206 of another file: a complete part never asks, so what is here is useless
            discard_part_file(target, part=False)
            part.truncate(0)
            raise Interrupted(f"{redact_url(remote.url)}: the file there has changed: starting again", wait=0)
        _append_chunks(chunks, remote, target, part, told)


def _is_continuation(response: httpx2.Response, have: int, notes: PartNotes, remote: RemoteFile) -> bool:
    """Is this answer the rest of the very file whose beginning is here?"""
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
    if response.status_code != 206 or not span or (int(span[1]), int(span[2])) != (have, notes.total):
        return False
    validator = _resume_validator(response)
    return notes.url != remote.url or not (validator and notes.validator) or validator == notes.validator


def _resume_validator(response: httpx2.Response) -> str:
    """What If-Range may hold: a strong ETag, else the date of the last change."""
    etag = response.headers.get("etag", "")
    return response.headers.get("last-modified", "") if not etag or etag.startswith("W/") else etag


def _begin_transfer(
    response: httpx2.Response, remote: RemoteFile, target: Path, part: IO[bytes], allow_mismatch: bool
) -> Iterator[bytes]:
    """Look at the beginning of a whole answer; only when it is the file, what was kept is given up."""
    where, chunks, head = redact_url(remote.url), response.iter_raw(), b""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise AssetError(f"{where}: sent packed although not asked for", "try again on another network")
    while len(head) < HEAD_BYTES and (chunk := next(chunks, b"")):
        head += chunk
    if not has_magic(head, remote.magic) or (not remote.magic and is_web_page(head)):
        raise AssetError(
            f"{where}: not the file but {_describe_answer(head, remote)}",
            "open the address in a browser; the source may be closed or moved, or a network asks for a login",
        )
    total = int(response.headers.get("content-length", 0))
    if total and remote.size and total != remote.size and not allow_mismatch:
        raise _mismatch_error(f"{where}: {total:,} bytes, published are {remote.size:,}")
    part.truncate(0)
    kept.write_part_notes(
        target, PartNotes(remote.url, _resume_validator(response), total or remote.size or 0)
    )
    return itertools.chain([head], chunks)


def _describe_answer(head: bytes, remote: RemoteFile) -> str:
    if not head:
        return "an empty answer"
    if is_web_page(head) or head[:HEAD_BYTES].isascii():
        return f"a page: {remote.hide(page_text(head))}"
    return f"something that is no {remote.magic} file (it begins with {head[:8].hex(' ')})"


def _append_chunks(
    chunks: Iterator[bytes], remote: RemoteFile, target: Path, part: IO[bytes], told: DownloadProgress | None
) -> None:
    notes = read_part_notes(target)
    done, total = part.seek(0, os.SEEK_END), notes.total if notes else 0
    free = shutil.disk_usage(target.parent).free
    if total - done > free:
        raise MachineError(
            f"{target.parent}: {format_bytes(total - done - free)} missing for {target.name} ({format_bytes(total)})",
            "free some space or choose another folder with -o; what came so far is kept",
        )
    if told:
        told(done, total, target.name)
    for chunk in chunks:
        part.write(chunk)
        part.flush()  # a killed kovqa loses nothing that has arrived
        done += len(chunk)
        if told:
            told(done, total)
    if total and done < total:
        raise Interrupted(
            f"{redact_url(remote.url)}: cut after {format_bytes(done)} of {format_bytes(total)}"
        )


def _finish_file(
    remote: RemoteFile, target: Path, told: DownloadProgress | None, allow_mismatch: bool
) -> None:
    """Check the whole file and give it its name."""
    path = part_file_path(target)
    size = path.stat().st_size
    found = file_checksums(path, remote.checksums, _checking_progress(target, told))
    wrong = checksum_mismatch(found, remote.checksums)
    if remote.size is not None and size != remote.size:
        wrong = f"{size:,} bytes, published are {remote.size:,}"
    if wrong and not allow_mismatch:
        path.replace(mismatch_path(target))
        discard_part_file(target)
        raise _mismatch_error(f"{target.name}: {wrong}; kept aside as {mismatch_path(target)}")
    # The receipt comes first: a file under its name without one would be fetched again.
    kept.write_receipt(target, path, redact_url(remote.url), found, accepted=bool(wrong))
    path.replace(target)
    fsync_path(target.parent)
    discard_part_file(target)


def _mismatch_error(message: str) -> AssetError:
    hint = "run the same command again to fetch it anew, or take it as it is with --allow-hash-mismatch"
    return AssetError(message, hint)
