"""Hugging Face hub: files of a repository at one commit. Source: docs/sources/datasets.md, D29 and D30.

The hub's own library finds the user's token and lists the files, with their sizes and checksums. It cannot
resume a file in another process, so our downloader fetches them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

from kovqa_core.download.checks import format_bytes
from kovqa_core.download.table import Asset, endpoint_url
from kovqa_core.errors import AssetError
from kovqa_core.messages import Message, message
from kovqa_core.net.hosts import require_private_channel
from kovqa_core.net.request import (
    RETRY_STATUSES,
    Interrupted,
    Refused,
    RemoteFile,
    network_errors,
    redact_url,
    retry_request,
    stream_request,
)
from kovqa_core.progress import OnProgress, ignore_progress

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo, RepoSibling

_WEIGHT_SUFFIXES = (".safetensors", ".bin")
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_NO_HEAD_STATUSES = (400, 405, 501)  # of servers that do not know HEAD
_LIGHT_PATTERNS = ("*.json", "*.txt", "*.md", "*.jinja", "*.model", "*.spm", "LICENSE*")
_LISTING_SECONDS = 60.0  # the library has no time limit of its own


@dataclass(frozen=True)
class HubListing:
    """What of a repository is fetched, at one commit.

    Attributes:
        commit: the commit.
        files: name -> where, how large, which checksum.
        left_aside: names of its other files.
        licence: as its card states it; "" where it does not.
    """

    commit: str
    files: Mapping[str, RemoteFile]
    left_aside: Sequence[str]
    licence: str

    @property
    def size(self) -> int:
        """Bytes of the files whose size is known."""
        return sum(remote.size or 0 for remote in self.files.values())

    def summary(self, repo: str) -> Message:
        """How much of a repository is fetched, before it is."""
        unknown = sum(remote.size is None for remote in self.files.values())
        pickles = [name for name in self.files if name.endswith(_PICKLE_SUFFIXES)]
        text = message(
            "download.hub-summary", "{repo}, commit {commit}: {files} files, {size}",
            repo=repo, commit=self.commit[:12], files=len(self.files), size=format_bytes(self.size),
        )  # fmt: skip
        if unknown:
            text = message(
                "download.hub-unknown-sizes",
                "{summary} + {files} of unknown size",
                summary=text,
                files=unknown,
            )
        if self.left_aside:
            text = message(
                "download.hub-left-aside", "{summary}; {files} other files left aside (--files chooses others)",
                summary=text, files=len(self.left_aside),
            )  # fmt: skip
        if pickles:
            text = message(
                "download.hub-pickles", "{summary}; {names}: pickles, which can hold code; kovqa runs none",
                summary=text, names=", ".join(pickles[:3]),
            )  # fmt: skip
        return message(
            "download.hub-licence", "{summary}; licence: {licence}", summary=text, licence=self.licence or "?"
        )


def is_hub_offline() -> bool:
    """Did the user forbid asking the hub (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE)?

    The library's rule, without importing it: offline, nothing else of it is needed.
    """
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.lower() in ("1", "true", "yes", "on")


def has_hub_token() -> bool:
    """Is there a token of the user's, or a login? Does not look whether it is still good: that may ask the hub."""
    from huggingface_hub import constants

    return bool(os.environ.get("HF_TOKEN", "").strip()) or Path(constants.HF_TOKEN_PATH).is_file()


def select_hub_files(names: Sequence[str], only: Sequence[str] = ()) -> list[str]:
    """Which of a repository's files are wanted.

    Without patterns: the light files of its top folder, and the weights as safetensors, or as
    `pytorch_model*.bin` where there are no safetensors.
    """
    if only:
        return [name for name in names if any(fnmatchcase(name, pattern) for pattern in only)]
    top = [name for name in names if "/" not in name]
    safetensors = [name for name in top if name.endswith(".safetensors")]
    weights = safetensors or [name for name in top if fnmatchcase(name, "pytorch_model*.bin")]
    light = [name for name in top if any(fnmatchcase(name, pattern) for pattern in _LIGHT_PATTERNS)]
    # The index of the weights that are not fetched would only mislead whoever loads the folder.
    other_weights = "pytorch_model" if safetensors else "model.safetensors"
    return sorted({*weights, *(name for name in light if not name.startswith(other_weights))})


def hub_listing(asset: Asset, on_progress: OnProgress = ignore_progress) -> HubListing:
    """The commit of a repository, and its wanted files.

    Raises:
        AssetError: no such repository or revision, no access (says where to ask), nothing wanted in it; or the
            hub cannot be reached (says what else can be done).
    """
    with explain_hub_refusal(asset), explain_unreachable_hub(asset):
        api = _hub_api()
        info = retry_request(lambda: _read_repository(api, asset), on_progress)
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        wanted = wanted_hub_files(asset, list(siblings))
        if not wanted:
            raise AssetError(
                message(
                    "download.hub-nothing-wanted",
                    "{repo} at {commit} holds none of {wanted}",
                    repo=asset.repo,
                    commit=info.sha,
                    wanted=", ".join(asset.only) or message("download.its-weights", "its weights"),
                )
            )
        # A renamed repository is listed under its new name: `info.id`.
        root = f"{api.endpoint}/{'datasets/' if asset.dataset else ''}{info.id}/resolve/{info.sha}"
        headers = {"Authorization": f"Bearer {api.token}"} if api.token else {}
        remotes = {
            name: _sibling_remote(
                siblings[name],
                RemoteFile(f"{root}/{quote(check_safe_name(name))}", headers=headers),
                on_progress,
            )
            for name in wanted
        }
        card = info.card_data.to_dict() if info.card_data else {}
        licence = card.get("license_name") or card.get("license") or ""
        return HubListing(
            str(info.sha), remotes, [name for name in siblings if name not in remotes], str(licence)
        )


def wanted_hub_files(asset: Asset, names: Sequence[str]) -> list[str]:
    """Which of a repository's files an asset consists of."""
    wanted = select_hub_files(names, asset.only)
    # A repository that somebody named by its id may keep its weights as anything (GGUF, folders): then all of it.
    if asset.by_id and not asset.only and not any(name.endswith(_WEIGHT_SUFFIXES) for name in wanted):
        wanted = list(names)
    return [name for name in wanted if name != ".gitattributes"]


@contextlib.contextmanager
def explain_unreachable_hub(asset: Asset) -> Iterator[None]:
    """Say what can be done where the hub cannot be reached: machines behind a company's wall are many."""
    try:
        yield
    except Interrupted as error:
        hint = message(
            "download.hub-unreachable.hint",
            "run it again, what has arrived is kept; or set HTTPS_PROXY for a proxy, HF_ENDPOINT for a mirror; or fetch "
            "{page} on another machine (hf download {repo} --local-dir FOLDER) and run: kovqa download {name} --from FOLDER",
            page=asset.page,
            repo=f"{asset.repo} --repo-type dataset" if asset.dataset else asset.repo,
            name=asset.name,
        )
        raise Interrupted(error.message, error.wait_seconds, hint) from None


def _hub_api() -> HfApi:
    # Otherwise the library asks the public hub for a list of tools to name in its User-Agent, also where
    # only a mirror can be reached (docs/surprises.md). It reads the variable when it is imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, get_token

    url, token = endpoint_url("hub"), get_token()
    if token:  # the library sends it to whatever HF_ENDPOINT names
        require_private_channel(url, message("download.hub-token", "your Hugging Face token"))
    return HfApi(endpoint=url, token=token or False, library_name="kovqa")


@contextlib.contextmanager
def _hub_errors(api: HfApi) -> Iterator[None]:
    """Classify the library's errors as those of every other request."""
    from huggingface_hub.errors import HfHubHTTPError

    remote = RemoteFile(api.endpoint, headers={"Authorization": f"Bearer {api.token}"} if api.token else {})
    with network_errors(remote):
        try:
            yield
        except HfHubHTTPError as error:
            status, url = error.response.status_code, redact_url(str(error.response.url))
            text = message("download.hub-status", "{url}: status {status}", url=url, status=status)
            if status in RETRY_STATUSES or status >= 500:
                raise Interrupted(text) from None
            raise Refused(text, error.response) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _not_a_hub_error(api) from None


def _read_repository(api: HfApi, asset: Asset) -> ModelInfo | DatasetInfo:
    """One request for the commit and the files."""
    read_info = api.dataset_info if asset.dataset else api.model_info
    with _hub_errors(api):
        info = read_info(
            asset.repo, revision=asset.pin or "main", files_metadata=True, timeout=_LISTING_SECONDS
        )
    if not info.sha or not info.id:
        raise _not_a_hub_error(api)
    return info


def _not_a_hub_error(api: HfApi) -> AssetError:
    return AssetError(
        message("download.hub-malformed", "{url}: not the answer of a hub", url=redact_url(api.endpoint)),
        message("download.hub-malformed.hint", "check HF_ENDPOINT"),
    )


def check_safe_name(name: str) -> str:
    """A listed file's name, which stays in its folder.

    Raises:
        AssetError: it would leave it.
    """
    # A listing is a server's word, and these names become paths on this disk.
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise AssetError(
            message(
                "download.hub-unsafe-name",
                "the hub lists a file named {name!r}, which leaves its folder",
                name=name,
            )
        )
    return name


def _sibling_remote(sibling: RepoSibling, remote: RemoteFile, on_progress: OnProgress) -> RemoteFile:
    """A listed file; some mirrors list no sizes and checksums: then its own headers are asked."""
    # LFS files have a sha256, small ones git's blob id, a sha1 (docs/sources/datasets.md, D29).
    if sibling.lfs:
        return replace(remote, size=sibling.lfs.size, checksums={"sha256": sibling.lfs.sha256})
    if sibling.blob_id:
        return replace(remote, size=sibling.size, checksums={"git": sibling.blob_id})
    return retry_request(lambda: _ask_file_headers(remote), on_progress)


def _ask_file_headers(remote: RemoteFile) -> RemoteFile:
    """A file with the size and checksum its headers state; without, where the server does not state them.

    Not the hub library's `get_hf_file_metadata`: it takes the length of any answer for the file's
    (docs/surprises.md).
    """
    accepted = (200, *_NO_HEAD_STATUSES)
    with stream_request(remote, method="HEAD", follow_redirects=False, accept=accepted) as response:
        headers, redirected = response.headers, response.is_redirect
        if response.status_code in _NO_HEAD_STATUSES:
            return remote
    # The hub's own headers are about the file, whatever comes after; the others are about this answer.
    size = headers.get("x-linked-size", "")
    packed = headers.get("content-encoding", "identity") != "identity"
    if not size and not redirected and not packed:
        size = headers.get("content-length", "")
    etag = (headers.get("x-linked-etag") or headers.get("etag") or "").removeprefix("W/").strip('"')
    # Told apart by their length in hexadecimal; an ETag of another length is a mirror's own and proves nothing.
    checksums = {64: {"sha256": etag}, 40: {"git": etag}}.get(len(etag), {})
    # Zero is what servers say that do not know the length of what they would send.
    return replace(remote, size=int(size) if size.isdecimal() and int(size) else None, checksums=checksums)


@contextlib.contextmanager
def explain_hub_refusal(asset: Asset) -> Iterator[None]:
    """Say what a refusal of the hub means and what to do. Gated repositories are listed, but not given."""
    try:
        yield
    except Refused as error:
        # The status alone does not tell a gated or missing repository from a missing revision or file: this header does.
        code = error.headers.get("x-error-code", "")
        hints = {
            "GatedRepo": message(
                "download.hub-gated.hint",
                "ask for access on {page}, then set HF_TOKEN to a token of your account",
                page=asset.page,
            ),
            "RevisionNotFound": message(
                "download.hub-no-revision.hint", "see its revisions on {page}", page=asset.page
            ),
            "EntryNotFound": message("download.hub-no-file.hint", "see its files on {page}", page=asset.page),
        }
        hint = hints.get(code) or message(
            "download.hub-no-repository.hint",
            "it does not exist, or is private: see {page}, and set HF_TOKEN if you have access",
            page=asset.page,
        )
        repo = f"{asset.repo} at {asset.pin}" if asset.pin else asset.repo
        if code == "GatedRepo":
            text = message("download.hub-gated", "{repo} on the hub: access must be asked for", repo=repo)
        else:
            reason = f"{error.status} {code}".strip()
            text = message("download.hub-refused", "{repo} on the hub: {reason}", repo=repo, reason=reason)
        raise AssetError(text, hint) from None
