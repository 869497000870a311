"""One downloader: an address -> a file that is whole and checked, or a part that can be resumed.

Follows docs/sources/datasets.md, D1 to D5: resumes only what is provably the same file, believes no
status 200 alone, and writes down no secret. Single requests and retries are in `net.request`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx2

from kovqa_core.download import part_file
from kovqa_core.download.checks import (
    HEAD_BYTES,
    checksum_mismatch,
    file_checksums,
    format_bytes,
    has_magic,
    is_web_page,
    size_mismatch,
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
from kovqa_core.messages import Message, message
from kovqa_core.net.pages import page_text
from kovqa_core.net.request import (
    HARMLESS_HEADERS,
    Interrupted,
    RemoteFile,
    redact_url,
    retry_request,
    stream_request,
)
from kovqa_core.progress import OnProgress, Progress, ignore_progress


def fetch_file(
    remote: RemoteFile,
    target: Path,
    on_progress: OnProgress = ignore_progress,
    *,
    allow_mismatch: bool = False,
) -> Path:
    """Fetch a file; resume what an earlier attempt left; do nothing when it is here already.

    Args:
        target: the file to write; appears whole and checked, or not at all.
        allow_mismatch: take it although its size or checksum is not the published one.

    Raises:
        AssetError: it cannot be had (exit 5; what has arrived is kept), or is not the published file.
        MachineError: the disk is too small.
    """
    still_good = message("download.partial-kept", "what has arrived is kept")
    with disk_errors(target, still_good), locked_part_file(target, on_progress) as stream:
        if part_file.is_file_finished(target, remote.size, remote.checksums, on_progress):
            discard_part_file(target)
            return target
        # The file that was refused lies here whole: accepting it needs no second download.
        kept_aside = mismatch_path(target)
        if allow_mismatch and kept_aside.is_file():
            discard_part_file(target)
            kept_aside.replace(part_file_path(target))
        else:
            _transfer_from_any(remote, target, stream, on_progress, allow_mismatch=allow_mismatch)
        # Before the checksum and the new name: after a power cut a name must not lead to bytes that never came.
        fsync_path(part_file_path(target))
        finish_file(remote, target, on_progress, allow_mismatch=allow_mismatch)
    return target


def _transfer_from_any(
    remote: RemoteFile, target: Path, part_stream: IO[bytes], on_progress: OnProgress, *, allow_mismatch: bool
) -> None:
    """From the address or, when that fails for good, from its mirrors."""
    # A mirror is another host: it must not see a token (docs/sources/datasets.md, D5).
    harmless = {name: value for name, value in remote.headers.items() if name.lower() in HARMLESS_HEADERS}
    mirrors = [dataclasses.replace(remote, url=url, headers=harmless) for url in remote.mirrors]
    # Paired with the next one, so that the message can say what is tried instead; the last has none.
    for source, next_mirror in itertools.zip_longest((remote, *mirrors), mirrors):
        try:
            attempt = functools.partial(
                _transfer_once, source, target, part_stream, on_progress, allow_mismatch=allow_mismatch
            )
            retry_request(attempt, on_progress, lambda: _partial_size(part_stream))
            break
        except AssetError as error:
            if next_mirror is None:
                raise
            mirror = redact_url(next_mirror.url)
            stage = message(
                "download.trying-mirror", "{error}; trying {url}", error=error.message, url=mirror
            )
            on_progress(Progress(stage))


def _partial_size(part_stream: IO[bytes]) -> int:
    return os.fstat(part_stream.fileno()).st_size


def _transfer_once(
    remote: RemoteFile, target: Path, part_stream: IO[bytes], on_progress: OnProgress, *, allow_mismatch: bool
) -> None:
    """One attempt: go on where the part ends if that is provably possible, else from the start.

    `Range` alone would join two files where the one on the server has changed: `If-Range` makes the server
    send the whole file then, and the total of `Content-Range` is compared for servers that ignore it.
    """
    size, notes = _partial_size(part_stream), read_part_notes(target)
    if notes and notes.url != remote.url and not remote.checksums:
        notes = None  # bytes of two addresses are only mixed where a checksum proves the result
    # All bytes are here; only the checks were missing when the last run ended.
    if notes and size == notes.total > 0:
        return
    headers = {}
    if notes and 0 < size < notes.total:
        headers["Range"] = f"bytes={size}-"
        # A mirror has validators of its own: there the checksum at the end is the proof.
        if notes.validator and notes.url == remote.url:
            headers["If-Range"] = notes.validator
    request = remote.requester or stream_request
    with request(remote, headers=headers, accept=(200, 206, 416) if headers else (200,)) as response:
        if response.status_code == 200:
            chunks = _begin_transfer(response, remote, target, part_stream, allow_mismatch=allow_mismatch)
        elif notes and _is_continuation(response, size, notes, remote) and not _packed_with(response, target):
            chunks = response.iter_raw()
        else:  # 416, or a 206 of another file: a complete part never asks, so the bytes here are useless
            part_file.discard_part_notes(target)
            part_stream.truncate(0)
            text = message(
                "download.remote-changed",
                "{url}: the file there has changed: starting again",
                url=redact_url(remote.url),
            )
            raise Interrupted(text, wait_seconds=0)
        _append_chunks(chunks, remote, target, part_stream, on_progress)


def _packed_with(response: httpx2.Response, target: Path) -> str:
    """How an answer is packed; "" where its bytes are the file's."""
    # Apache calls a .gz file itself "encoded" (AddEncoding): unpacked, it would be another file.
    if target.name.endswith((".gz", ".tgz")):
        return ""
    return response.headers.get("content-encoding", "").lower().replace("identity", "")


def _is_continuation(response: httpx2.Response, size: int, notes: PartNotes, remote: RemoteFile) -> bool:
    """Is this answer the rest of the very file whose first `size` bytes are here?"""
    # `bytes FIRST-LAST/TOTAL`; a total of `*` is not believed, for it says nothing about the file.
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
    if response.status_code != 206 or not span or (int(span[1]), int(span[2])) != (size, notes.total):
        return False
    validator = _resume_validator(response)
    return notes.url != remote.url or not (validator and notes.validator) or validator == notes.validator


def _resume_validator(response: httpx2.Response) -> str:
    """What If-Range may hold: a strong ETag, else the date of the last change (RFC 9110, 13.1.5)."""
    # A weak ETag says "equivalent", not "the same bytes".
    etag = response.headers.get("etag", "")
    return response.headers.get("last-modified", "") if not etag or etag.startswith("W/") else etag


def _begin_transfer(
    response: httpx2.Response,
    remote: RemoteFile,
    target: Path,
    part_stream: IO[bytes],
    *,
    allow_mismatch: bool,
) -> Iterator[bytes]:
    """Look at the beginning of a whole answer; only when it is the file, what was kept is given up."""
    url, head, packed = redact_url(remote.url), b"", _packed_with(response, target)
    if packed not in ("", "gzip", "deflate"):
        raise AssetError(
            message("download.compressed", "{url}: sent compressed although not asked for", url=url),
            message("download.compressed.hint", "try again on another network"),
        )
    # Some servers and proxies pack unasked. The length is that of the packed bytes then, and so is the validator.
    chunks = response.iter_bytes() if packed else response.iter_raw()
    # A login page or a quota notice comes with status 200: only the first bytes show it.
    while len(head) < HEAD_BYTES and (chunk := next(chunks, b"")):
        head += chunk
    # Without a magic any bytes are let in, but not a page: that is never what was asked for.
    if not has_magic(head, remote.magic) or (not remote.magic and is_web_page(head)):
        raise AssetError(
            message(
                "download.not-the-file",
                "{url}: not the file but {answer}",
                url=url,
                answer=_describe_answer(head, remote),
            ),
            message(
                "download.not-the-file.hint",
                "open the address in a browser; the source may be closed or moved, or a network asks for a login",
            ),
        )
    if not head and not remote.checksums and remote.size != 0:
        # Nothing says that an empty file is meant.
        raise Interrupted(message("download.nothing-came", "{url}: an empty answer", url=url))
    # 0: chunked or packed, so the length is not known before the end.
    total = 0 if packed else int(response.headers.get("content-length", 0))
    wrong_size = size_mismatch(total, remote.size) if total and remote.size else ""
    if wrong_size and not allow_mismatch:
        raise AssetError(
            message("download.wrong-length", "{url}: {mismatch}", url=url, mismatch=wrong_size),
            mismatch_hint(),
        )
    part_stream.truncate(0)
    # What was packed is not gone on with: the rest would be that of other bytes.
    known = ("", 0) if packed else (_resume_validator(response), total or remote.size or 0)
    notes = PartNotes(remote.url, *known)
    part_file.write_part_notes(target, notes)
    return itertools.chain([head], chunks)


def _describe_answer(head: bytes, remote: RemoteFile) -> Message:
    if not head:
        return message("download.answer-empty", "an empty answer")
    if is_web_page(head) or head[:HEAD_BYTES].isascii():
        page = remote.redact_secrets(page_text(head))
        return message("download.answer-page", "a page: {page}", page=page)
    return message(
        "download.answer-other",
        "something that is no {kind} file (it begins with {head})",
        kind=remote.magic,
        head=head[:8].hex(" "),
    )


def _append_chunks(
    chunks: Iterator[bytes], remote: RemoteFile, target: Path, part_stream: IO[bytes], on_progress: OnProgress
) -> None:
    notes = read_part_notes(target)
    done, total = part_stream.seek(0, os.SEEK_END), notes.total if notes else 0
    # Known before the transfer, not after hours of it; without a length the disk itself says when it is full.
    free = shutil.disk_usage(target.parent).free
    if total - done > free:
        raise MachineError(
            message(
                "download.disk-full",
                "{folder}: {missing} missing for {file} ({size})",
                folder=target.parent,
                missing=format_bytes(total - done - free),
                file=target.name,
                size=format_bytes(total),
            ),
            message(
                "download.disk-full.hint",
                "free some space or choose another folder with -o; what has arrived is kept",
            ),
        )
    on_progress(Progress(target.name, done, total or None, "bytes"))
    for chunk in chunks:
        part_stream.write(chunk)
        part_stream.flush()  # a killed kovqa loses nothing that has arrived
        done += len(chunk)
        on_progress(Progress(target.name, done, total or None, "bytes"))
    if total and done > total:
        # An answer that says "the rest" and gives more: nothing tells which of the bytes are the file's.
        part_file.discard_part_notes(target)
        part_stream.truncate(0)
        raise Interrupted(
            message(
                "download.too-much", "{url}: sent more than the file's {total}",
                url=redact_url(remote.url), total=format_bytes(total),
            ),
            wait_seconds=0,
        )  # fmt: skip
    if total and done < total:
        raise Interrupted(
            message(
                "download.cut",
                "{url}: cut after {done} of {total}",
                url=redact_url(remote.url),
                done=format_bytes(done),
                total=format_bytes(total),
            )
        )


def finish_file(
    remote: RemoteFile,
    target: Path,
    on_progress: OnProgress = ignore_progress,
    *,
    allow_mismatch: bool = False,
) -> None:
    """Check the `.part` of a target against what is published, and give it its name.

    Raises:
        AssetError: it is not the published file; kept aside.
    """
    path = part_file_path(target)
    checksums = file_checksums(path, remote.checksums, on_progress)
    mismatch = size_mismatch(path.stat().st_size, remote.size) or checksum_mismatch(
        checksums, remote.checksums
    )
    if mismatch and not allow_mismatch:
        path.replace(mismatch_path(target))
        discard_part_file(target)
        text = message(
            "download.mismatch",
            "{file}: {mismatch}; kept aside as {aside}",
            file=target.name,
            mismatch=mismatch,
            aside=mismatch_path(target),
        )
        raise AssetError(text, mismatch_hint())
    # The receipt comes first: a file under its name without one would be fetched again.
    part_file.write_receipt(target, path, redact_url(remote.url), checksums, accepted=bool(mismatch))
    path.replace(target)
    fsync_path(target.parent)
    discard_part_file(target)


def mismatch_hint() -> Message:
    """What to do with a file that is not the published one."""
    return message(
        "download.mismatch.hint",
        "run the same command again to fetch it anew, or take it as it is with --allow-hash-mismatch",
    )
