"""Google Drive's files by gdown, where a page is not understood here: it follows Google's changes faster than we do.

It is optional (`pip install 'kovqa[gdown]'`), because it brings a second HTTP client and an HTML parser for
something that is rarely needed. It cannot resume what another process began, so it is the second way only.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from kovqa_core.download.checks import HEAD_BYTES, has_magic, is_web_page
from kovqa_core.download.part_file import download_lock, part_file_path
from kovqa_core.download.resumable import finish_file
from kovqa_core.errors import AssetError
from kovqa_core.files import disk_errors
from kovqa_core.messages import message
from kovqa_core.net.request import RemoteFile
from kovqa_core.progress import OnProgress, Progress

_TIMEOUT_SECONDS = 60.0  # gdown waits for ever otherwise


def fetch_with_gdown(
    file_id: str,
    remote: RemoteFile,
    target: Path,
    refusal: AssetError,
    on_progress: OnProgress,
    *,
    allow_mismatch: bool = False,
) -> Path:
    """Fetch a file with gdown, from the beginning; it is checked as a file of ours is.

    Args:
        file_id: of Google Drive.
        remote: what is known of the file.
        target: the file to write; appears whole and checked, or not at all.
        refusal: why our own way failed.
        allow_mismatch: take it although its checksum is not the one of an earlier fetch.

    Raises:
        AssetError: gdown is not installed, fails too, or brings something else.
    """
    if importlib.util.find_spec("gdown") is None:
        hint = message(
            "download.gdown-missing.hint",
            "{hint}; or let gdown try it: pip install 'kovqa[gdown]'",
            hint=refusal.hint,
        )
        raise AssetError(refusal.message, hint)
    on_progress(
        Progress(
            message("download.trying-gdown", "{error}; trying gdown", error=refusal.message), unit="bytes"
        )
    )
    # A file of its own: what our own way brought so far can still be resumed if this fails.
    gdown_file = target.with_name(target.name + ".gdown")
    with disk_errors(target), download_lock(target, on_progress):
        try:
            _download_to(file_id, gdown_file, on_progress, target.name, refusal)
            _require_file(gdown_file, remote, refusal)
            gdown_file.replace(part_file_path(target))
        finally:
            gdown_file.unlink(missing_ok=True)
        finish_file(remote, target, on_progress, allow_mismatch=allow_mismatch)
    return target


def _download_to(file_id: str, path: Path, on_progress: OnProgress, name: str, refusal: AssetError) -> None:
    """Let gdown write a file."""
    import gdown

    def show_bytes(done: int, total: int | None) -> None:
        on_progress(Progress(name, done, total, "bytes"))

    try:
        with path.open("wb") as stream:  # given a path, gdown leaves files of random names behind when killed
            gdown.download(
                id=file_id,
                output=stream,
                quiet=True,
                use_cookies=False,
                progress=show_bytes,
                timeout=_TIMEOUT_SECONDS,
            )
    except (gdown.DownloadError, OSError) as error:  # those of requests, its HTTP client, are OSErrors
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the network
            raise
        reason = " ".join(str(error).split())
        raise AssetError(
            message(
                "download.gdown-failed",
                "{error}; nor can gdown: {reason}",
                error=refusal.message,
                reason=reason,
            ),
            refusal.hint,
        ) from None


def _require_file(path: Path, remote: RemoteFile, refusal: AssetError) -> None:
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if not has_magic(head, remote.magic) or is_web_page(head) or not head:
        raise AssetError(
            message(
                "download.gdown-not-the-file",
                "{error}; what gdown brought is not the file either",
                error=refusal.message,
            ),
            refusal.hint,
        )
