"""The table of assets, read strictly: what there is, where it comes from, under which terms.

`assets.yaml` lists what can be fetched, `sources.yaml` whose it is. Addresses there are written
ENDPOINT:PATH, so that every endpoint can be set: KOVQA_COCO_ENDPOINT=http://127.0.0.1:8000.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from kovqa_core.download.find_asset import TABLE, asset_of
from kovqa_core.errors import SettingsError, unknown
from kovqa_core.net.request import Remote
from kovqa_core.settings.strict_yaml import Document, Settings, build, read

ENDPOINTS = {
    "coco": "http://images.cocodataset.org",  # its https certificate is another name's
    "s3": "https://s3.amazonaws.com",
    "stanford": "https://cs.stanford.edu",
    "github": "https://github.com",
    "kowiki": "https://dumps.wikimedia.org",
    "hub": "https://huggingface.co",
}


def endpoint(name: str) -> str:
    """An endpoint's address: KOVQA_<NAME>_ENDPOINT, for the hub HF_ENDPOINT too, else the public one."""
    usual = os.environ.get("HF_ENDPOINT") if name == "hub" else None
    found = os.environ.get(f"KOVQA_{name.upper()}_ENDPOINT") or usual or ENDPOINTS[name]
    return found.rstrip("/")


def address(at: str) -> str:
    """ENDPOINT:PATH as an address."""
    name, _, path = at.partition(":")
    return f"{endpoint(name)}/{path}"


class Source(Settings):
    """Where assets come from, and its terms."""

    name: str
    title: str
    kind: Literal["http", "kowiki", "hub", "drive", "aihub"]
    base: str = ""  # ENDPOINT:PATH before the names of files
    licence: str
    who: str  # may use it
    page: str
    by_hand: str = ""


class File(Settings):
    """One file whose address is known."""

    name: str
    at: str = ""  # ENDPOINT:PATH; by default the source's base and the name
    mirrors: tuple[str, ...] = ()
    size: int | None = None  # bytes
    md5: str = ""
    sha256: str = ""
    magic: str = ""  # a kind of checks.KINDS


class Asset(Settings):
    """Something to be fetched under one name."""

    name: str
    title: str
    ko: str
    source: str
    folder: str = ""  # below assets/
    unpack: bool = False
    about: int | None = None  # bytes, estimated
    files: tuple[File, ...] = ()
    repo: str = ""  # hub
    dataset: bool = False  # hub: a data set, not a model
    only: tuple[str, ...] = ()  # hub: names or patterns; by default the light files and the weights
    dump: Literal["", "articles", "multistream", "content"] = ""  # kowiki
    key: int = 0  # aihub
    pin: str = ""  # date of a dump, revision of a repository; given as NAME@PIN

    @model_validator(mode="after")
    def _one_kind(self) -> Asset:
        if sum(map(bool, (self.files, self.repo, self.dump, self.key))) != 1:
            raise ValueError("state one of files, repo, dump, key")
        return self

    @property
    def size(self) -> int | None:
        """Bytes, where all files' sizes are published."""
        sizes = [file.size for file in self.files]
        return sum(size for size in sizes if size) if sizes and None not in sizes else None

    def source_of(self) -> Source:
        """Whose it is."""
        return sources()[self.source]

    @property
    def page(self) -> str:
        """Where people read about it, and ask for access."""
        if self.key:
            return f"https://aihub.or.kr/aihubdata/data/view.do?dataSetSn={self.key}"
        kind = "datasets/" if self.dataset else ""
        return f"{ENDPOINTS['hub']}/{kind}{self.repo}" if self.repo else self.source_of().page

    def address(self, file: File) -> str:
        """Where one of its files is published."""
        return address(file.at or self.source_of().base + file.name)

    def remote(self, file: File) -> Remote:
        """What is known about one of its files."""
        sums = {name: value for name, value in (("md5", file.md5), ("sha256", file.sha256)) if value}
        mirrors = tuple(address(mirror) for mirror in file.mirrors)
        return Remote(self.address(file), file.size, sums, file.magic, mirrors=mirrors)


@functools.cache
def sources() -> Mapping[str, Source]:
    """All sources."""
    return {name: build(Source, entry) for name, entry in _entries(TABLE.with_name("sources.yaml")).items()}


@functools.cache
def assets() -> Mapping[str, Asset]:
    """All assets.

    Raises:
        SettingsError: the table is wrong; with file and line.
    """
    found = {name: build(Asset, entry) for name, entry in _entries(TABLE).items()}
    for asset in found.values():
        if asset.source not in sources():
            raise unknown("source", asset.source, sources(), f"{TABLE}: {asset.name}")
    return found


def _entries(path: Path) -> dict[str, Document]:
    whole = read(path)
    places = {
        name: {p[1:]: place for p, place in whole.origin.items() if p[:1] == (name,)} for name in whole.values
    }
    return {name: Document({"name": name, **entry}, places[name]) for name, entry in whole.values.items()}


def find(word: str) -> Asset:
    """The asset of a name, of NAME@PIN, or of a file it holds (then that file alone).

    Raises:
        SettingsError: nobody knows it; lists the nearest names.
    """
    name, _, pin = word.partition("@")
    holder = name if name in assets() else asset_of(name)
    if not holder:
        raise unknown("asset", name, assets(), "list them: kovqa download --list")
    asset = assets()[holder]
    if pin and not (asset.repo or asset.dump):
        raise SettingsError(f"{name} has no versions to choose from", f"kovqa download {name}")
    alone = tuple(file for file in asset.files if file.name == name)
    return asset.model_copy(update={"pin": pin, "files": alone or asset.files})
