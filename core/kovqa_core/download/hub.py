"""Hugging Face hub: files of a repository at one commit. Source: docs/sources/datasets.md, D29 and D30.

Its own library cannot resume a file in another process, so our downloader fetches the files; this
finds out which they are, how large, and their checksums (the hub's headers give sha256 for large
files and git's sha1 for small ones).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urljoin

import httpx2

from kovqa_core.download.table import Asset, endpoint_url
from kovqa_core.errors import AssetError
from kovqa_core.net.request import (
    DownloadProgress,
    Interrupted,
    Refused,
    RemoteFile,
    new_http_client,
    read_document,
    retry_request,
    stream_request,
)

_LIGHT_PATTERNS = (
    "*.json", "*.txt", "*.md", "*.jinja", "*.model", "*.spm", "LICENSE*",
)  # fmt: skip
_MAX_MOVES = 4  # redirects within the hub, for renamed repositories


def is_hub_offline() -> bool:
    """Did the user forbid asking the hub (HF_HUB_OFFLINE)?"""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def read_hub_token() -> str:
    """The user's token: HF_TOKEN, or the file the hub's own login writes; empty without one."""
    if found := os.environ.get("HF_TOKEN", "").strip():
        return found
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    try:
        return (home.expanduser() / "token").read_text("utf-8").strip()
    except OSError:
        return ""


def select_hub_files(names: Sequence[str], only: Sequence[str] = ()) -> list[str]:
    """Which of a repository's files are wanted.

    Without patterns: the light files of its top folder, and the weights as safetensors, or as
    `pytorch_model*.bin` where nothing else is there.
    """
    if only:
        return [name for name in names if any(fnmatchcase(name, pattern) for pattern in only)]
    top = [name for name in names if "/" not in name]
    safe = [name for name in top if name.endswith(".safetensors")]
    weights = safe or [name for name in top if fnmatchcase(name, "pytorch_model*.bin")]
    light = [name for name in top if any(fnmatchcase(name, pattern) for pattern in _LIGHT_PATTERNS)]
    other = "pytorch_model" if safe else "model.safetensors"
    return sorted({*weights, *(name for name in light if not name.startswith(other))})


def hub_remotes(asset: Asset, told: DownloadProgress | None = None) -> tuple[str, dict[str, RemoteFile]]:
    """The commit of a repository, and its wanted files: name -> where, how large, which checksum.

    Raises:
        AssetError: no such repository or revision, no access (says where to ask), nothing wanted in it.
    """
    base, kind = endpoint_url("hub"), "datasets/" if asset.dataset else ""
    own = {"Authorization": f"Bearer {read_hub_token()}"} if read_hub_token() else {}
    url = f"{base}/api/{kind or 'models/'}{asset.repo}/revision/{quote(asset.pin or 'main', safe='')}"
    with _explain_hub_refusal(asset), new_http_client() as client:
        commit, repo, names = _list_repository(RemoteFile(url, headers=own), told)
        wanted = select_hub_files(names, asset.only)
        if not wanted:
            raise AssetError(
                f"{asset.repo} at {commit} holds none of {', '.join(asset.only) or 'its weights'}"
            )
        root = f"{base}/{kind}{repo}/resolve/{commit}"
        files = {name: RemoteFile(f"{root}/{quote(_check_safe_name(name))}", headers=own) for name in wanted}
        return commit, {
            name: retry_request(partial(_with_published_size, r, client), told) for name, r in files.items()
        }


def _list_repository(remote: RemoteFile, told: DownloadProgress | None) -> tuple[str, str, list[str]]:
    found = read_document(remote, told)
    try:
        info = json.loads(found)
        return info["sha"], info["id"], [file["rfilename"] for file in info["siblings"]]
    except (ValueError, KeyError, TypeError):
        raise AssetError(f"{remote.url}: not the answer of a hub", "check HF_ENDPOINT") from None


def _check_safe_name(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise AssetError(f"the hub lists a file named {name!r}, which leaves its folder")
    return name


def _with_published_size(remote: RemoteFile, client: httpx2.Client) -> RemoteFile:
    """A file with the size and checksum its headers tell."""
    url = remote.url
    for _ in range(_MAX_MOVES):
        asked = RemoteFile(url, headers=remote.headers)
        with stream_request(asked, method="HEAD", stay=True, client=client) as response:
            headers = response.headers
            if (
                response.is_redirect
                and "x-linked-etag" not in headers
                and _is_same_host(url, headers["location"])
            ):
                url = urljoin(url, headers["location"])
                continue
        etag = headers.get("x-linked-etag") or headers.get("etag", "")
        etag = etag.removeprefix("W/").strip('"')
        size = headers.get("x-linked-size") or ("" if response.is_redirect else headers.get("content-length"))
        sums = {64: {"sha256": etag}, 40: {"git": etag}}.get(len(etag), {})
        return RemoteFile(remote.url, int(size) if size else None, sums, headers=remote.headers)
    raise Interrupted(f"{remote.url}: sent from place to place")


def _is_same_host(url: str, location: str) -> bool:
    return httpx2.URL(urljoin(url, location)).netloc == httpx2.URL(url).netloc


@contextlib.contextmanager
def _explain_hub_refusal(asset: Asset) -> Iterator[None]:
    """Say what a refusal of the hub means and what to do."""
    page = asset.page
    try:
        yield
    except Refused as error:
        code = error.headers.get("x-error-code", "")
        hint = {
            "GatedRepo": f"ask for access on {page}, then set HF_TOKEN to a token of your account",
            "RevisionNotFound": f"see its revisions on {page}",
            "EntryNotFound": f"see its files on {page}",
        }.get(code, f"it is not there, or private: see {page}, and set HF_TOKEN if you have access")
        what = "access must be asked for" if code == "GatedRepo" else f"{error.status} {code}".strip()
        at = f" at {asset.pin}" if asset.pin else ""
        raise AssetError(f"{asset.repo}{at} on the hub: {what}", hint) from None
