"""What is written down of a fetched asset: which revision, and which paths it has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.download.table import Asset
from kovqa_core.errors import DataError
from kovqa_core.files import read_bytes, write_json
from kovqa_core.paths import relative_path


@dataclass(frozen=True)
class AssetRecord:
    """The file `.NAME.asset.json` in an asset's folder.

    Attributes:
        revision: date of a dump, commit of a repository; "" where there is no such thing.
        paths: what to use, relative to the folder.
        files: what was fetched, relative to the folder; archives among them may be gone since.
        fetched: date and time, with time zone.
    """

    asset: str = ""
    revision: str = ""
    paths: Sequence[str] = ()
    files: Sequence[str] = ()
    fetched: str = ""


def asset_record_path(asset: Asset, folder: Path) -> Path:
    """Where an asset's record lies."""
    return folder / f".{asset.name.replace('/', '--').replace(':', '-')}.asset.json"


def read_asset_record(asset: Asset, folder: Path) -> AssetRecord | None:
    """An asset's record; None without one, or when it was damaged."""
    try:
        return AssetRecord(**parse_json(read_bytes(asset_record_path(asset, folder))))
    except (DataError, ValueError, TypeError):
        return None


def write_asset_record(
    asset: Asset, folder: Path, paths: Sequence[Path], revision: str = "", files: Sequence[str] = ()
) -> None:
    """Write down that an asset is here."""
    relative = [relative_path(path, folder) for path in paths]  # the folder may be moved
    fetched = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    record = AssetRecord(asset.name, revision or asset.pin, relative, list(files), fetched)
    write_json(asset_record_path(asset, folder), asdict(record))
