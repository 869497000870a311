"""The table of assets, read strictly: what there is, where it comes from, under which terms.

`assets.yaml` lists what can be fetched, `sources.yaml` whose it is. Addresses there are written
ENDPOINT:PATH, so that every endpoint can be set: KOVQA_COCO_ENDPOINT=http://127.0.0.1:8000.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from kovqa_core.download.find_asset import ASSET_TABLE, asset_holding_file
from kovqa_core.errors import SettingsError, unknown_name_error
from kovqa_core.messages import WordedMessage, message, worded_message
from kovqa_core.net.request import RemoteFile
from kovqa_core.settings.strict_yaml import SettingsDocument, StrictSettings, build_settings, read_yaml

_HUB_SOURCE = "hf"  # in sources.yaml: repositories that the table does not list
# One or two parts, as the hub has them; a part is never only dots, for it becomes a folder.
_HUB_ID = re.compile(r"hf:(?P<kind>datasets/)?(?P<repo>(?:\w[\w.-]*/)?\w[\w.-]*)", re.ASCII)

ENDPOINT_URLS = {
    "coco": "http://images.cocodataset.org",  # its https certificate is another name's
    "s3": "https://s3.amazonaws.com",
    "stanford": "https://cs.stanford.edu",
    "github": "https://github.com",
    "kowiki": "https://dumps.wikimedia.org",
    "hub": "https://huggingface.co",
}


def endpoint_url(name: str) -> str:
    """An endpoint's address: KOVQA_<NAME>_ENDPOINT, for the hub HF_ENDPOINT too, else the public one."""
    # HF_ENDPOINT is what users of a mirror have set already (docs/sources/datasets.md, D30).
    hub_setting = os.environ.get("HF_ENDPOINT") if name == "hub" else None
    url = os.environ.get(f"KOVQA_{name.upper()}_ENDPOINT") or hub_setting or ENDPOINT_URLS[name]
    return url.rstrip("/")


def expand_address(at: str) -> str:
    """ENDPOINT:PATH as an address."""
    name, _, path = at.partition(":")
    return f"{endpoint_url(name)}/{path}"


class TermsInKorean(StrictSettings):
    """What `AssetSource` says, in Korean; what is empty is as in English."""

    licence: str = ""
    who: str = ""
    by_hand: str = ""


class AssetSource(StrictSettings):
    """Where assets come from, and its terms."""

    name: str
    title: str
    kind: Literal["http", "kowiki", "hub", "drive", "aihub"]
    base: str = ""  # ENDPOINT:PATH before the names of files
    licence: str
    who: str  # may use it
    page: str
    by_hand: str = ""
    ko: TermsInKorean = TermsInKorean()

    @property
    def shown_licence(self) -> WordedMessage:
        """The licence as a person reads it; what was accepted is compared in English."""
        return worded_message(self.licence, ko=self.ko.licence)

    @property
    def shown_who(self) -> WordedMessage:
        """Who may use it, as a person reads it."""
        return worded_message(self.who, ko=self.ko.who)


class AssetFile(StrictSettings):
    """One file whose address is known."""

    name: str
    at: str = ""  # ENDPOINT:PATH; by default the source's base and the name
    mirrors: tuple[str, ...] = ()
    size: int | None = None  # bytes
    md5: str = ""
    sha256: str = ""
    magic: str = ""  # a key of checks.FILE_MAGIC


class Asset(StrictSettings):
    """Something to be fetched under one name."""

    name: str
    title: str
    ko: str
    source: str
    folder: str = ""  # below assets/
    unpack: bool = False
    about: int | None = None  # bytes, estimated where not all sizes are published
    files: tuple[AssetFile, ...] = ()
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

    @property
    def shown_title(self) -> WordedMessage:
        """The title as a person reads it."""
        return worded_message(self.title, ko=self.ko)

    def source_of(self) -> AssetSource:
        """Whose it is; a repository named by its id is one of its own, whose terms are accepted by themselves."""
        source = load_sources()[self.source]
        return source.model_copy(update={"name": self.name, "page": self.page}) if self.by_id else source

    @property
    def by_id(self) -> bool:
        """Is it a repository of the hub that the user named by its id, and no entry of the table?"""
        return self.source == _HUB_SOURCE

    @property
    def page(self) -> str:
        """Where people read about it, and ask for access."""
        if self.key:
            return f"https://aihub.or.kr/aihubdata/data/view.do?dataSetSn={self.key}"
        kind = "datasets/" if self.dataset else ""
        return f"{ENDPOINT_URLS['hub']}/{kind}{self.repo}" if self.repo else self.source_of().page

    def address(self, file: AssetFile) -> str:
        """Where one of its files is published."""
        return expand_address(file.at or self.source_of().base + file.name)

    def remote(self, file: AssetFile) -> RemoteFile:
        """What is known about one of its files."""
        checksums = {name: value for name, value in (("md5", file.md5), ("sha256", file.sha256)) if value}
        mirrors = tuple(expand_address(mirror) for mirror in file.mirrors)
        return RemoteFile(self.address(file), file.size, checksums, file.magic, mirrors=mirrors)


@functools.cache
def load_sources() -> Mapping[str, AssetSource]:
    """All sources."""
    return {
        name: build_settings(AssetSource, entry)
        for name, entry in _table_entries(ASSET_TABLE.with_name("sources.yaml")).items()
    }


@functools.cache
def load_assets() -> Mapping[str, Asset]:
    """All assets.

    Raises:
        SettingsError: the table is wrong; with file and line.
    """
    assets = {name: build_settings(Asset, entry) for name, entry in _table_entries(ASSET_TABLE).items()}
    for asset in assets.values():
        if asset.source not in load_sources():
            raise unknown_name_error(
                message("download.unknown-source", "unknown source '{source}'", source=asset.source),
                asset.source,
                load_sources(),
                f"{ASSET_TABLE}: {asset.name}",
            )
    return assets


def _table_entries(path: Path) -> dict[str, SettingsDocument]:
    """Each entry of a table as a document of its own, so that an error names its line."""
    table = read_yaml(path)
    origins = {
        # Places are stored under (entry, field, …): without the first key, the entry is a document of its own.
        name: {keys[1:]: place for keys, place in table.origin.items() if keys[:1] == (name,)}
        for name in table.values
    }
    return {
        name: SettingsDocument({"name": name, **(entry if isinstance(entry, dict) else {})}, origins[name])
        for name, entry in table.values.items()
    }


def find_asset_entry(name_and_pin: str) -> Asset:
    """The asset of a name, of NAME@PIN, of a file it holds (then that file alone), or of a repository of the hub.

    Args:
        name_and_pin: the name; `hf:OWNER/NAME` is a model of the hub, `hf:datasets/OWNER/NAME` a data set.

    Raises:
        SettingsError: nobody knows it; lists the nearest names.
    """
    name, _, pin = name_and_pin.partition("@")
    if name.startswith("hf:"):
        return _hub_asset(name, pin)
    holder = name if name in load_assets() else asset_holding_file(name)
    if not holder:
        raise unknown_name_error(
            message("download.unknown-asset", "unknown asset '{name}'", name=name),
            name,
            load_assets(),
            message("download.unknown-asset.hint", "list them: kovqa download --list"),
        )
    asset = load_assets()[holder]
    if pin and not (asset.repo or asset.dump):
        raise SettingsError(
            message("download.no-versions", "{name} has no versions to choose from", name=name),
            message("download.no-versions.hint", "kovqa download {name}", name=name),
        )
    named_file = tuple(file for file in asset.files if file.name == name)
    return asset.model_copy(update={"pin": pin, "files": named_file or asset.files})


def _hub_asset(name: str, revision: str) -> Asset:
    """A repository of the hub by its id; each revision has a folder of its own, so that no two are mixed."""
    id = _HUB_ID.fullmatch(name)
    if not id:
        raise SettingsError(
            message("download.hub-id", "{name} is not the id of a repository", name=name),
            message(
                "download.hub-id.hint",
                "hf:OWNER/NAME for a model, hf:datasets/OWNER/NAME for a data set; @REVISION may follow",
            ),
        )
    folder = name.replace(":", "/") + (f"@{revision.replace('/', '--')}" if revision else "")
    return Asset(
        name=name, title=id["repo"], ko=id["repo"], source=_HUB_SOURCE, folder=folder, repo=id["repo"],
        dataset=bool(id["kind"]), only=("*",) if id["kind"] else (), pin=revision,
    )  # fmt: skip
