"""Files that come from elsewhere: weights and tokenizers, found by path or by name.

The table of what `kovqa download` can fetch is only looked through here, not parsed, so that
completion and every command can afford it; `download/table.py` reads it.
"""

from __future__ import annotations

import re
from pathlib import Path

from kovqa_core.download.hub_copies import find_hub_copy, parse_hub_name
from kovqa_core.errors import AssetError
from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.paths import kovqa_home

ASSET_TABLE = Path(__file__).with_name("assets.yaml")


def asset_names() -> list[str]:
    """Names of all assets that can be fetched, in the order of the table."""
    return re.findall(r"^([\w.-]+):", ASSET_TABLE.read_text("utf-8"), re.MULTILINE)


def asset_holding_file(file: str) -> str:
    """The name of the asset that holds a file; empty when none does."""
    file_entry = re.compile(rf"(?:- name: |only: \[){re.escape(file)}(?=[\n,\]])")
    return next((name for name, entry in _asset_entries() if file_entry.search(entry)), "")


def _single_file(asset: str) -> str:
    """The only file of an asset; empty when it holds several, or is none."""
    files = [re.findall(r"- name: (\S+)", entry) for name, entry in _asset_entries() if name == asset]
    return files[0][0] if files and len(files[0]) == 1 else ""


def _asset_entries() -> list[tuple[str, str]]:
    """Name and text of every asset."""
    entries = re.split(r"^(?=[\w.-]+:)", ASSET_TABLE.read_text("utf-8"), flags=re.MULTILINE)
    return [(entry.partition(":")[0], entry) for entry in entries]


def find_asset(name: str, not_found: Message) -> Path:
    """The file of a path, or of a name where `kovqa download` puts it: `assets/` here or in the user's folder.

    Args:
        name: path, bare file name, or a model of the hub: OWNER/NAME[@REVISION]; also the name of an asset of one file.
        not_found: what the error says, with the name in it.

    Raises:
        AssetError: it is in none of these places; says how to get it.
    """
    folder = kovqa_home() / "assets"
    places = [Path(name).expanduser(), Path("assets") / name, folder / name]
    if Path(name).name == name:
        places += sorted(folder.glob(f"*/{name}"))
    for place in places:
        if place.exists():
            return place
    hub_name = parse_hub_name(name)
    if hub_name and (copy := find_hub_copy(hub_name)):
        return copy.folder
    if (file := _single_file(name)) not in ("", name):
        return find_asset(file, not_found)
    asset = name if name in asset_names() else asset_holding_file(Path(name).name)
    if asset:
        hint = message(
            "download.asset-not-found.fetch-hint",
            "fetch it with: kovqa download {asset}; or put it into assets/ or {folder}, or give a path",
            asset=asset,
            folder=folder,
        )
    elif hub_name:
        hint = message(
            "download.asset-not-found.hub-hint",
            "fetch it with: kovqa download {asset}; or put it into assets/ or {folder}, or give a path",
            asset=shell_quote(f"hf:{hub_name}"),
            folder=folder,
        )
    else:
        hint = message(
            "download.asset-not-found.hint", "put it into assets/ or {folder}, or give a path", folder=folder
        )
    raise AssetError(not_found, hint)
