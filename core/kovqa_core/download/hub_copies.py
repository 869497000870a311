"""Models of the Hugging Face hub that lie on this machine, found by OWNER/NAME[@REVISION]. Asks no network.

    KOVQA_HOME/assets/hf/OWNER/NAME[@REVISION]          where `kovqa download hf:OWNER/NAME` puts them
    CACHE/models--OWNER--NAME/snapshots/COMMIT          where the hub's own library does (docs/sources/hub_models.md, H1)

Imports neither that library nor any other, so that completion can use it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import AssetError, DataError, did_you_mean
from kovqa_core.files import read_bytes
from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.paths import cache_home, kovqa_home

DEFAULT_REVISION = "main"
_HUB_NAME = re.compile(
    r"(?P<prefix>hf:)?(?P<repo>(?:\w[\w.-]*/)?\w[\w.-]*)(?:@(?P<revision>\w[\w./+-]*))?", re.ASCII
)
_COMMIT_PREFIX = re.compile(r"[0-9a-f]{7,40}")
_CACHE_ENTRY = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)")
# A path of the hub's cache or of our assets, on whatever machine.
_SNAPSHOT_PATH = re.compile(r"/models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})/?$")
_ASSET_PATH = re.compile(r"/assets/hf/(\w[\w.-]*/\w[\w.-]*)(?:@([\w.+-]+))?/?$", re.ASCII)
_WEIGHT_PATTERNS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class HubName:
    """A model of the hub as a user names it.

    Attributes:
        repo: OWNER/NAME.
        revision: branch, tag or commit; "": the default branch.
    """

    repo: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


@dataclass(frozen=True)
class HubCopy:
    """One revision of a model, in a folder here.

    Attributes:
        repo: OWNER/NAME.
        commit: "" where nobody wrote it down.
        revisions: names by which this commit was fetched.
        folder: of its files.
        missing: files that are not here yet; none: it is whole.
        note: what a person should know of the choice, where there are several copies that are not the same.
    """

    repo: str
    commit: str
    revisions: frozenset[str]
    folder: Path
    missing: tuple[str, ...] = ()
    note: Message | None = None

    @property
    def name(self) -> str:
        """OWNER/NAME@COMMIT: what a record holds; without a commit OWNER/NAME alone."""
        return f"{self.repo}@{self.commit}" if self.commit else self.repo

    def is_revision(self, revision: str) -> bool:
        """Is it what a user means by this revision ("": the default branch), or by the first digits of a commit?"""
        if (revision or DEFAULT_REVISION) in self.revisions:
            return True
        return bool(_COMMIT_PREFIX.fullmatch(revision)) and self.commit.startswith(revision)


def parse_hub_name(text: str) -> HubName | None:
    """The model that OWNER/NAME[@REVISION] names, also with `hf:` before it; None for any other text."""
    match = _HUB_NAME.fullmatch(text)
    if match is None or not (match["prefix"] or "/" in match["repo"]):
        return None
    revision = match["revision"] or ""
    # It becomes a path: no part of it may lead up.
    return None if ".." in revision.split("/") else HubName(match["repo"], revision)


def pinned_hub_name(text: str) -> HubName | None:
    """The model that OWNER/NAME@COMMIT names; None for any other text."""
    name = parse_hub_name(text)
    return name if name and _COMMIT_PREFIX.fullmatch(name.revision) else None


def is_same_hub_model(pinned: str, typed: str) -> bool:
    """Is a typed name that of the model which a run keeps with its commit? A name without a revision says only which."""
    then, now = pinned_hub_name(pinned), parse_hub_name(typed)
    if then is None or now is None or then.repo != now.repo:
        return False
    if not now.revision or _COMMIT_PREFIX.fullmatch(now.revision):
        return then.revision.startswith(now.revision)
    try:
        copy = find_hub_copy(now)
    except AssetError:
        return False
    return copy is not None and copy.commit == then.revision


def hub_name_of_path(path: str) -> HubName | None:
    """The model that a path names which leads into the hub's cache or our assets, of this machine or of another."""
    if match := _SNAPSHOT_PATH.search(path):
        return HubName(f"{match[1]}/{match[2]}", match[3])
    if match := _ASSET_PATH.search(path):
        return HubName(match[1], (match[2] or "").replace("--", "/"))
    return None


def find_hub_copy(name: HubName) -> HubCopy | None:
    """The whole copy of a model that is used: that of kovqa's assets before that of the hub's cache.

    Returns:
        None: nothing of this repository is on this machine.

    Raises:
        AssetError: it is here in another revision, or half downloaded; says how to fetch it.
    """
    copies = list(_copies_of(name.repo))
    meant = [copy for copy in copies if copy.is_revision(name.revision)]
    whole = [copy for copy in meant if not copy.missing]
    if whole:
        return replace(whole[0], note=_choice_note(name, whole[0], meant))
    if meant:
        raise _half_downloaded(name, meant[0])
    if copies:
        raise _other_revision(name, copies)
    return None


def hub_identity(folder: Path) -> str:
    """OWNER/NAME@COMMIT of a folder that is a copy of a model of the hub; "" of any other."""
    folder = folder.absolute()
    if match := _SNAPSHOT_PATH.search(folder.as_posix()):
        return f"{match[1]}/{match[2]}@{match[3]}"
    for record in sorted(folder.glob(".hf-*.asset.json")):
        name, commit, _ = _read_record(record)
        if name and "/" in name:
            return f"{name}@{commit}" if commit else name
    return ""


def hub_models_here() -> Iterator[str]:
    """OWNER/NAME, or OWNER/NAME@REVISION where that alone is here, of all models on this machine."""
    assets = kovqa_home() / "assets" / "hf"
    for folder in sorted(assets.glob("*/*/")):
        if folder.parent.name != "datasets" and (folder / "config.json").is_file():
            yield f"{folder.parent.name}/{folder.name}"
    for entry in sorted(hub_cache().glob("models--*--*")):
        if match := _CACHE_ENTRY.fullmatch(entry.name):
            repo, default = f"{match['owner']}/{match['name']}", _read_reference(entry, DEFAULT_REVISION)
            for snapshot in sorted((entry / "snapshots").glob("*")):
                if (snapshot / "config.json").is_file():
                    yield repo if snapshot.name == default else f"{repo}@{snapshot.name}"


def hub_cache() -> Path:
    """The cache of the hub's own library, by its variables (docs/sources/hub_models.md, H1)."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(os.path.expandvars(named)).expanduser()
    home = os.environ.get("HF_HOME")
    return (Path(os.path.expandvars(home)).expanduser() if home else cache_home() / "huggingface") / "hub"


# ------------------------------------------------------------------------------ what is here


def _copies_of(repo: str) -> Iterator[HubCopy]:
    """All copies of a repository here, kovqa's own first."""
    owner, _, name = repo.rpartition("/")
    assets = kovqa_home() / "assets" / "hf" / owner
    for folder in sorted(path for path in (assets / name, *assets.glob(f"{name}@*")) if path.is_dir()):
        revision = folder.name.partition("@")[2].replace("--", "/") or DEFAULT_REVISION
        yield _asset_copy(repo, revision, folder)
    entry = hub_cache() / f"models--{repo.replace('/', '--')}"
    references = {path.relative_to(entry / "refs").as_posix(): path for path in (entry / "refs").rglob("*")}
    for snapshot in sorted(path for path in (entry / "snapshots").glob("*") if path.is_dir()):
        revisions = {name for name in references if _read_reference(entry, name) == snapshot.name}
        missing = missing_model_files(snapshot)
        yield HubCopy(repo, snapshot.name, frozenset(revisions), snapshot, tuple(missing))


def _asset_copy(repo: str, revision: str, folder: Path) -> HubCopy:
    """What `kovqa download` put into a folder. It writes its record last: without one the download has only begun."""
    record = folder / f".hf-{repo.replace('/', '--')}.asset.json"
    if not record.is_file():
        begun = sorted(path.name.removesuffix(".part") for path in folder.rglob("*.part"))
        return HubCopy(repo, "", frozenset((revision,)), folder, tuple(begun) or (record.name,))
    _, commit, files = _read_record(record)
    missing = [file for file in files if not (folder / file).is_file()] or missing_model_files(folder)
    return HubCopy(repo, commit, frozenset((revision,)), folder, tuple(missing))


def missing_model_files(folder: Path) -> list[str]:
    """What a model folder plainly lacks: its configuration, weights, shards that their index names, files of links."""
    if not any((folder / name).is_file() for name in ("config.json", "kovqa.json")):
        return ["config.json"]
    lost = [path.name for path in sorted(folder.iterdir()) if path.is_symlink() and not path.exists()]
    if lost or (folder / "kovqa.json").is_file():  # what a folder of ours needs, its family knows
        return lost
    indexes = [*folder.glob("*.safetensors.index.json")] or [*folder.glob("*.bin.index.json")]
    if indexes and not (folder / "model.safetensors").is_file():
        return [name for name in _named_shards(indexes[0]) if not (folder / name).is_file()]
    if not any(path for pattern in _WEIGHT_PATTERNS for path in folder.glob(pattern)):
        return ["*.safetensors"]
    return []


def _named_shards(index: Path) -> list[str]:
    """The shards of an index; none where it cannot be read, which whoever opens the model reports."""
    try:
        return sorted({str(name) for name in parse_json(read_bytes(index))["weight_map"].values()})
    except (DataError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _read_reference(entry: Path, revision: str) -> str:
    """The commit that a branch or tag of the hub's cache is at; "" where it is not known."""
    try:
        return (entry / "refs" / revision).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _read_record(record: Path) -> tuple[str, str, list[str]]:
    """Repository, commit and files of an asset's record (`asset_record.py`); empty where it is damaged."""
    try:
        fields = parse_json(read_bytes(record))
        files = [str(file) for file in fields.get("files", ())]
        return str(fields["asset"]).removeprefix("hf:"), str(fields.get("revision", "")), files
    except (DataError, ValueError, KeyError, TypeError, AttributeError):
        return "", "", []


# ------------------------------------------------------------------------------ what is said


def _choice_note(name: HubName, taken: HubCopy, meant: Sequence[HubCopy]) -> Message | None:
    """That there are other copies, where they are not the same."""
    others = [copy for copy in meant if copy.missing or copy.commit != taken.commit]
    if not others:
        return None
    return message(
        "download.hub-copy-chosen",
        "{name}: taking {folder} (commit {commit}); not the same is in {others}",
        name=name,
        folder=taken.folder,
        commit=taken.commit[:12] or "?",
        others=", ".join(str(copy.folder) for copy in others),
    )


def hub_copy_missing(name: HubName) -> AssetError:
    """The error for a model of the hub that is not on this machine at all."""
    text = message(
        "download.hub-copy-missing",
        "{name} is neither a folder here nor a model of the hub that is on this machine",
        name=name,
    )
    near = difflib.get_close_matches(name.repo, {model.partition("@")[0] for model in hub_models_here()}, 3)
    return AssetError(
        did_you_mean(text, near) if near else text,
        message(
            "download.hub-copy-missing.hint",
            "fetch it with: kovqa download {asset}; on a machine without a network: kovqa download {asset} --from FOLDER",
            asset=shell_quote(f"hf:{name}"),
        ),
    )


def _other_revision(name: HubName, copies: Sequence[HubCopy]) -> AssetError:
    here = sorted({copy.commit[:12] or min(copy.revisions) for copy in copies})
    return AssetError(
        message(
            "download.hub-other-revision",
            "{repo} is on this machine, but not its revision {revision}; here: {here}",
            repo=name.repo,
            revision=name.revision or DEFAULT_REVISION,
            here=", ".join(here),
        ),
        message(
            "download.hub-other-revision.hint",
            "fetch it with: kovqa download {asset}; or name what is here: {other}",
            asset=shell_quote(f"hf:{name}"),
            other=f"{name.repo}@{here[0]}",
        ),
    )


def _half_downloaded(name: HubName, copy: HubCopy) -> AssetError:
    return AssetError(
        message(
            "download.hub-copy-half",
            "{name} is only half downloaded: {folder} lacks {missing}{more}",
            name=name,
            folder=copy.folder,
            missing=copy.missing[0],
            more=f" (+{len(copy.missing) - 1})" if len(copy.missing) > 1 else "",
        ),
        message(
            "download.hub-copy-half.hint",
            "finish it with: kovqa download {asset}",
            asset=shell_quote(f"hf:{name}"),
        ),
    )
