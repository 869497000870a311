"""Hugging Face hub: files of a repository at one commit. Source: docs/sources/datasets.md, D29 and D30.

The hub's own library finds the user's token and lists the files, with their sizes and checksums. It cannot
resume a file in another process, so our downloader fetches them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

from kovqa_core.download.table import Asset, endpoint_url
from kovqa_core.errors import AssetError
from kovqa_core.messages import message
from kovqa_core.net.request import (
    RETRY_STATUSES,
    Interrupted,
    Refused,
    RemoteFile,
    network_errors,
    redact_url,
    retry_request,
)
from kovqa_core.progress import OnProgress, ignore_progress

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo, RepoSibling

_LIGHT_PATTERNS = ("*.json", "*.txt", "*.md", "*.jinja", "*.model", "*.spm", "LICENSE*")
_LISTING_SECONDS = 60.0  # the library has no time limit of its own


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


def hub_remotes(asset: Asset, on_progress: OnProgress = ignore_progress) -> tuple[str, dict[str, RemoteFile]]:
    """The commit of a repository, and its wanted files: name -> where, how large, which checksum.

    Raises:
        AssetError: no such repository or revision, no access (says where to ask), nothing wanted in it.
    """
    with explain_hub_refusal(asset):
        api = _hub_api()
        info = retry_request(lambda: _read_repository(api, asset), on_progress)
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        wanted = select_hub_files(list(siblings), asset.only)
        if not wanted:
            raise AssetError(
                message(
                    "download.hub-nothing-wanted",
                    "{repo} at {commit} holds none of {wanted}",
                    repo=asset.repo,
                    commit=info.sha,
                    wanted=", ".join(asset.only) or "its weights",
                )
            )
        # A renamed repository is listed under its new name: `info.id`.
        root = f"{api.endpoint}/{'datasets/' if asset.dataset else ''}{info.id}/resolve/{info.sha}"
        headers = {"Authorization": f"Bearer {api.token}"} if api.token else {}
        return str(info.sha), {
            name: _sibling_remote(api, siblings[name], f"{root}/{quote(_check_safe_name(name))}", headers)
            for name in wanted
        }


def _hub_api() -> HfApi:
    # Otherwise the library asks the public hub for a list of tools to name in its User-Agent, also where
    # only a mirror can be reached (docs/surprises.md). It reads the variable when it is imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, get_token

    return HfApi(endpoint=endpoint_url("hub"), token=get_token() or False, library_name="kovqa")


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


def _check_safe_name(name: str) -> str:
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


def _sibling_remote(api: HfApi, sibling: RepoSibling, url: str, headers: dict[str, str]) -> RemoteFile:
    """A listed file; some mirrors list no sizes and checksums: then its own headers are asked."""
    # LFS files have a sha256, small ones git's blob id, a sha1 (docs/sources/datasets.md, D29).
    if sibling.lfs:
        return RemoteFile(url, sibling.lfs.size, {"sha256": sibling.lfs.sha256}, headers=headers)
    if sibling.blob_id:
        return RemoteFile(url, sibling.size, {"git": sibling.blob_id}, headers=headers)
    with _hub_errors(api):
        metadata = api.get_hf_file_metadata(url=url)
    etag = metadata.etag or ""
    # Told apart by their length in hexadecimal; an ETag of another length is a mirror's own and proves nothing.
    checksums = {64: {"sha256": etag}, 40: {"git": etag}}.get(len(etag), {})
    return RemoteFile(url, metadata.size, checksums, headers=headers)


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
