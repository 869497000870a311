"""`kovqa download`: an asset of the table -> files in their place, checked and unpacked.

One function per kind of source finds out what to fetch (`KINDS`); what follows is the same for all.
An archive is unpacked into a folder of its name and then removed. `adopt` does the same with a file
the user fetched by hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kovqa_core.download import resumable
from kovqa_core.download.checks import (
    HEAD_BYTES,
    checksum_mismatch,
    file_checksums,
    format_bytes,
    has_magic,
    is_web_page,
)
from kovqa_core.download.members import check_disk_space
from kovqa_core.download.part_file import part_file_path, read_receipt, write_receipt
from kovqa_core.download.table import Asset, AssetFile
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.files import atomic_file, disk_errors, make_folder, write_json
from kovqa_core.net.request import DownloadProgress, Refused, RemoteFile
from kovqa_core.paths import kovqa_home

_ARCHIVE_SUFFIXES = (".tar.gz", ".tar", ".zip")


@dataclass(frozen=True)
class FetchOptions:
    """What the user wants besides the asset."""

    output: Path | None = None  # instead of the user's assets folder
    files: tuple[int, ...] = ()  # AI-Hub's file keys; none: all
    allow_mismatch: bool = False
    keep_archive: bool = False


def asset_folder(asset: Asset, output: Path | None = None) -> Path:
    """Where an asset's files go."""
    return output or kovqa_home() / "assets" / asset.folder


def fetch_asset(asset: Asset, wishes: FetchOptions, told: DownloadProgress | None = None) -> list[Path]:
    """Fetch an asset; what is here already is not fetched again.

    Returns:
        What to use: files, unpacked folders, or the folder of a repository or AI-Hub set.

    Raises:
        AssetError: it cannot be had; says why, and what to do by hand.
        MachineError: the disk has no room.
    """
    if wishes.files and not asset.key:
        raise SettingsError(f"--files is for AI-Hub's sets, {asset.name} is none", "leave it out")
    folder = make_folder(asset_folder(asset, wishes.output))
    with _suggest_manual_download(asset):
        return SOURCE_FETCHERS[asset.source_of().kind](asset, folder, wishes, told)


# ---------------------------------------------------------------------------- kinds of sources


def _fetch_http(
    asset: Asset, folder: Path, wishes: FetchOptions, told: DownloadProgress | None
) -> list[Path]:
    return _fetch_remote_files(
        {file.name: asset.remote(file) for file in asset.files}, asset, folder, wishes, told
    )


def _fetch_kowiki(
    asset: Asset, folder: Path, wishes: FetchOptions, told: DownloadProgress | None
) -> list[Path]:
    from kovqa_core.download import kowiki

    here = _recorded_paths(asset, folder)
    if here and not asset.pin:
        return here  # a newer dump is another one: asked for by its date
    found = kowiki.kowiki_remotes(asset, folder, told)
    return _write_asset_record(asset, folder, _fetch_remote_files(found, asset, folder, wishes, told))


def _fetch_hub(asset: Asset, folder: Path, wishes: FetchOptions, told: DownloadProgress | None) -> list[Path]:
    from kovqa_core.download import hub

    if hub.is_hub_offline():
        if not (here := _recorded_paths(asset, folder)):
            missing = (
                asset.repo if not _asset_record_path(asset, folder).exists() else "a file of " + asset.repo
            )
            raise AssetError(f"{missing} is not in {folder}, and HF_HUB_OFFLINE is set", "unset it to fetch")
        return here
    commit, found = hub.hub_remotes(asset, told)
    _fetch_remote_files(found, asset, folder, wishes, told)
    return _write_asset_record(asset, folder, [folder], commit, list(found))


def _fetch_drive(
    asset: Asset, folder: Path, wishes: FetchOptions, told: DownloadProgress | None
) -> list[Path]:
    from kovqa_core.download import drive

    def get(file: AssetFile, target: Path) -> None:
        link = file.at.removeprefix("drive:")
        drive.fetch_drive_file(link, target, told, asset.name, file.magic, wishes.allow_mismatch)

    return [
        _fetch_and_unpack(asset, folder / file.name, {}, wishes, told, partial(get, file))
        for file in asset.files
    ]


def _fetch_aihub(
    asset: Asset, folder: Path, wishes: FetchOptions, told: DownloadProgress | None
) -> list[Path]:
    from kovqa_core.download import aihub

    for path in aihub.fetch_aihub_files(asset.key, folder, wishes.files or None, told):
        if into := _unpacked_folder(asset, path):
            _unpack_file(
                path, into, True, told
            )  # without checksums, the archives are the proof of what is here
    return _write_asset_record(asset, folder, [folder])


SourceFetcher = Callable[[Asset, Path, FetchOptions, DownloadProgress | None], list[Path]]
SOURCE_FETCHERS: dict[str, SourceFetcher] = {
    "http": _fetch_http,
    "kowiki": _fetch_kowiki,
    "hub": _fetch_hub,
    "drive": _fetch_drive,
    "aihub": _fetch_aihub,
}


# -------------------------------------------------------------------------- the same for all


def _fetch_remote_files(
    found: Mapping[str, RemoteFile],
    asset: Asset,
    folder: Path,
    wishes: FetchOptions,
    told: DownloadProgress | None,
) -> list[Path]:
    """Fetch files one after the other; each is unpacked before the next one needs room."""
    sizes = (_missing_bytes(remote, folder / name) for name, remote in found.items())
    check_disk_space(folder, sum(sizes) if not asset.unpack else 0)

    def get(remote: RemoteFile, target: Path) -> None:
        resumable.fetch_file(remote, target, told, wishes.allow_mismatch)

    return [
        _fetch_and_unpack(asset, folder / name, remote.checksums, wishes, told, partial(get, remote))
        for name, remote in found.items()
    ]


def _missing_bytes(remote: RemoteFile, target: Path) -> int:
    here = next((path.stat().st_size for path in (target, part_file_path(target)) if path.exists()), 0)
    return max(0, (remote.size or 0) - here)


def _fetch_and_unpack(
    asset: Asset,
    target: Path,
    sums: Mapping[str, str],
    wishes: FetchOptions,
    told: DownloadProgress | None,
    get: Callable[[Path], None],
) -> Path:
    """One file where it belongs: the file itself, or the folder it unpacks to."""
    folder = _unpacked_folder(asset, target)
    if folder is None:
        get(target)
        return target
    if not (_is_unpacked(target, folder, sums) and not target.exists()):
        get(target)
        _unpack_file(target, folder, wishes.keep_archive, told)
    return folder


def _unpacked_folder(asset: Asset, target: Path) -> Path | None:
    suffix = next((s for s in _ARCHIVE_SUFFIXES if target.name.endswith(s)), None)
    return target.with_name(target.name.removesuffix(suffix)) if asset.unpack and suffix else None


def _is_unpacked(target: Path, folder: Path, sums: Mapping[str, str]) -> bool:
    """Does the folder hold what the published archive holds? The archive itself may be gone."""
    from kovqa_core.download.archive import UNPACK_RECEIPT

    receipt, unpacked = read_receipt(target), _read_json_or_empty(folder / UNPACK_RECEIPT).get("source", {})
    known = {name: value for name, value in sums.items() if name in receipt.get("checksums", {})}
    if not receipt or (checksum_mismatch(receipt["checksums"], known) and not receipt["accepted_mismatch"]):
        return False
    return (unpacked.get("bytes"), unpacked.get("modified")) == (receipt["size"], receipt["mtime_ns"])


def _unpack_file(target: Path, folder: Path, keep: bool, told: DownloadProgress | None) -> None:
    from kovqa_core.download.archive import unpack_archive

    if told:
        told(0, 0, f"unpacking {target.name}")
    unpack_archive(target, folder, told)
    if not keep:
        target.unlink(missing_ok=True)


@contextlib.contextmanager
def _suggest_manual_download(asset: Asset) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise AssetError(error.message, manual_instructions(asset)) from None


def manual_instructions(asset: Asset) -> str:
    """How to get an asset without us."""
    source = asset.source_of()
    pages = [asset.address(file) for file in asset.files if source.kind == "http"] or [asset.page]
    more = f" {source.by_hand}" if source.by_hand else ""
    return f"with a browser: {' '.join(pages)}, then: kovqa download {asset.name} --from FILE.{more}"


# ---------------------------------------------------------------------------- what is here


def _asset_record_path(asset: Asset, folder: Path) -> Path:
    return folder / f".{asset.name}.asset.json"


def _write_asset_record(
    asset: Asset, folder: Path, paths: list[Path], revision: str = "", files: list[str] | None = None
) -> list[Path]:
    """Write down that an asset is here: which revision, and which paths it has."""
    names = [os.path.relpath(path, folder) for path in paths]
    entry = {"asset": asset.name, "revision": revision or asset.pin, "paths": names, "files": files or []}
    write_json(_asset_record_path(asset, folder), {**entry, "fetched": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    return paths


def _read_json_or_empty(path: Path) -> dict[str, Any]:
    """A document of ours; empty when it is not there or was damaged."""
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _recorded_paths(asset: Asset, folder: Path) -> list[Path]:
    """Paths of an asset that was fetched and is still here; empty when anything is missing."""
    noted = _read_json_or_empty(_asset_record_path(asset, folder))
    targets = [folder / name for name in noted.get("files", [])]
    here = [_unpacked_folder(asset, target) or target for target in targets]
    paths = [folder / name for name in noted.get("paths", [])]
    return paths if all(path.exists() for path in [*here, *paths]) else []


def asset_state(asset: Asset, output: Path | None = None) -> str:
    """ "here", how much of it is here, or ""."""
    folder = asset_folder(asset, output)
    targets = [folder / file.name for file in asset.files]
    if targets:
        whole = [
            t.is_file() or ((f := _unpacked_folder(asset, t)) and _is_unpacked(t, f, {})) for t in targets
        ]
        parts = [part_file_path(target) for target in targets]
    else:
        whole = [bool(_recorded_paths(asset, folder))]
        parts = list(folder.rglob("*.part")) if asset.folder and folder.is_dir() else []
    if all(whole):
        return "here"
    begun = sum(part.stat().st_size for part in parts if part.is_file())
    return (
        f"{format_bytes(begun)} so far"
        if begun
        else f"{sum(map(bool, whole))} of {len(whole)}"
        if any(whole)
        else ""
    )


# ----------------------------------------------------------------------------- by hand


def adopt_local_file(
    asset: Asset, given: Path, wishes: FetchOptions, told: DownloadProgress | None = None
) -> list[Path]:
    """Take a file the user fetched by hand: check it, put it in its place, unpack it.

    Raises:
        SettingsError: no such file, or it is not clear which file of the asset it is.
        AssetError: it is not the published file.
    """
    if given.is_dir():
        raise SettingsError(f"{given} is a folder", "give the file as it came, not unpacked")
    if not given.is_file():
        raise SettingsError(f"no such file: {given}", "check the path")
    file = _match_asset_file(asset, given)
    remote = asset.remote(file) if asset.source_of().kind == "http" else RemoteFile("", magic=file.magic)
    folder = make_folder(asset_folder(asset, wishes.output))
    target = folder / file.name
    sums, accepted = _check_local_file(given, remote, wishes.allow_mismatch, told)
    with disk_errors(target):
        _link_or_copy(given, target)
        write_receipt(target, target, f"by hand: {given.name}", sums, accepted)
    if into := _unpacked_folder(asset, target):
        _unpack_file(target, into, wishes.keep_archive, told)
    paths = [into or target]
    return paths if asset.files else _write_asset_record(asset, folder, paths)


def _match_asset_file(asset: Asset, given: Path) -> AssetFile:
    """Which file of an asset this is: by name, or the only one there is."""
    if not asset.files:
        return AssetFile(name=given.name, magic="bzip2" if asset.dump else "")
    named = [file for file in asset.files if file.name == given.name]
    if not named and len(asset.files) > 1:
        names = ", ".join(file.name for file in asset.files)
        raise SettingsError(f"{given.name} is none of {asset.name}'s files", f"rename it to one of: {names}")
    return (named or asset.files)[0]


def _check_local_file(
    given: Path, remote: RemoteFile, allow_mismatch: bool, told: DownloadProgress | None
) -> tuple[dict[str, str], bool]:
    """Checksums of a file, and whether it was taken although it is not the published one."""
    with given.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if not has_magic(head, remote.magic) or (not remote.magic and is_web_page(head)):
        what = "a web page" if is_web_page(head) else "something else"
        raise AssetError(f"{given}: not a {remote.magic or 'data'} file but {what}", "fetch it again")
    note = f"checking {given.name}"
    sums = file_checksums(given, remote.checksums, (lambda d, t: told(d, t, note)) if told else None)
    wrong, size = checksum_mismatch(sums, remote.checksums), given.stat().st_size
    if remote.size is not None and size != remote.size:
        wrong = f"{size:,} bytes, published are {remote.size:,}"
    if wrong and not allow_mismatch:
        raise AssetError(f"{given}: {wrong}", "fetch it again, or take it with --allow-hash-mismatch")
    return sums, bool(wrong)


def _link_or_copy(given: Path, target: Path) -> None:
    """The same file under another name where the disk can do that, else a copy."""
    if target.exists() and target.samefile(given):
        return
    link = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        os.link(given.resolve(), link)
        link.replace(target)
    except OSError:
        with given.open("rb") as source, atomic_file(target) as stream:
            shutil.copyfileobj(source, stream, 1 << 20)
