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
from kovqa_core.download.checks import HEAD, amount, checksums, differing, is_kind, is_page
from kovqa_core.download.members import check_space
from kovqa_core.download.part_file import part_of, read_receipt, write_receipt
from kovqa_core.download.table import Asset, File
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.files import disk_errors, make_folder, whole_file, write_json
from kovqa_core.net.request import Refused, Remote, Told
from kovqa_core.paths import home

_ARCHIVES = (".tar.gz", ".tar", ".zip")


@dataclass(frozen=True)
class Wishes:
    """What the user wants besides the asset."""

    output: Path | None = None  # instead of the user's assets folder
    files: tuple[int, ...] = ()  # AI-Hub's file keys; none: all
    allow_mismatch: bool = False
    keep_archive: bool = False


def folder_of(asset: Asset, output: Path | None = None) -> Path:
    """Where an asset's files go."""
    return output or home() / "assets" / asset.folder


def download(asset: Asset, wishes: Wishes, told: Told | None = None) -> list[Path]:
    """Fetch an asset; what is here already is not fetched again.

    Returns:
        What to use: files, unpacked folders, or the folder of a repository or AI-Hub set.

    Raises:
        AssetError: it cannot be had; says why, and what to do by hand.
        MachineError: the disk has no room.
    """
    if wishes.files and not asset.key:
        raise SettingsError(f"--files is for AI-Hub's sets, {asset.name} is none", "leave it out")
    folder = make_folder(folder_of(asset, wishes.output))
    with _by_hand_instead(asset):
        return KINDS[asset.source_of().kind](asset, folder, wishes, told)


# ---------------------------------------------------------------------------- kinds of sources


def _http(asset: Asset, folder: Path, wishes: Wishes, told: Told | None) -> list[Path]:
    return _bring({file.name: asset.remote(file) for file in asset.files}, asset, folder, wishes, told)


def _kowiki(asset: Asset, folder: Path, wishes: Wishes, told: Told | None) -> list[Path]:
    from kovqa_core.download import kowiki

    here = _recorded(asset, folder)
    if here and not asset.pin:
        return here  # a newer dump is another one: asked for by its date
    found = kowiki.remotes(asset, folder, told)
    return _record(asset, folder, _bring(found, asset, folder, wishes, told))


def _hub(asset: Asset, folder: Path, wishes: Wishes, told: Told | None) -> list[Path]:
    from kovqa_core.download import hub

    if hub.offline():
        if not (here := _recorded(asset, folder)):
            missing = asset.repo if not _record_of(asset, folder).exists() else "a file of " + asset.repo
            raise AssetError(f"{missing} is not in {folder}, and HF_HUB_OFFLINE is set", "unset it to fetch")
        return here
    commit, found = hub.remotes(asset, told)
    _bring(found, asset, folder, wishes, told)
    return _record(asset, folder, [folder], commit, list(found))


def _drive(asset: Asset, folder: Path, wishes: Wishes, told: Told | None) -> list[Path]:
    from kovqa_core.download import drive

    def get(file: File, target: Path) -> None:
        link = file.at.removeprefix("drive:")
        drive.fetch(link, target, told, asset.name, file.magic, wishes.allow_mismatch)

    return [_place(asset, folder / file.name, {}, wishes, told, partial(get, file)) for file in asset.files]


def _aihub(asset: Asset, folder: Path, wishes: Wishes, told: Told | None) -> list[Path]:
    from kovqa_core.download import aihub

    for path in aihub.fetch(asset.key, folder, wishes.files or None, told):
        if into := _unpacked(asset, path):
            _unpack(path, into, True, told)  # without checksums, the archives are the proof of what is here
    return _record(asset, folder, [folder])


Kind = Callable[[Asset, Path, Wishes, Told | None], list[Path]]
KINDS: dict[str, Kind] = {"http": _http, "kowiki": _kowiki, "hub": _hub, "drive": _drive, "aihub": _aihub}


# -------------------------------------------------------------------------- the same for all


def _bring(
    found: Mapping[str, Remote], asset: Asset, folder: Path, wishes: Wishes, told: Told | None
) -> list[Path]:
    """Fetch files one after the other; each is unpacked before the next one needs room."""
    sizes = (_missing(remote, folder / name) for name, remote in found.items())
    check_space(folder, sum(sizes) if not asset.unpack else 0)

    def get(remote: Remote, target: Path) -> None:
        resumable.fetch(remote, target, told, wishes.allow_mismatch)

    return [
        _place(asset, folder / name, remote.checksums, wishes, told, partial(get, remote))
        for name, remote in found.items()
    ]


def _missing(remote: Remote, target: Path) -> int:
    here = next((path.stat().st_size for path in (target, part_of(target)) if path.exists()), 0)
    return max(0, (remote.size or 0) - here)


def _place(
    asset: Asset,
    target: Path,
    sums: Mapping[str, str],
    wishes: Wishes,
    told: Told | None,
    get: Callable[[Path], None],
) -> Path:
    """One file where it belongs: the file itself, or the folder it unpacks to."""
    folder = _unpacked(asset, target)
    if folder is None:
        get(target)
        return target
    if not (_is_unpacked(target, folder, sums) and not target.exists()):
        get(target)
        _unpack(target, folder, wishes.keep_archive, told)
    return folder


def _unpacked(asset: Asset, target: Path) -> Path | None:
    suffix = next((s for s in _ARCHIVES if target.name.endswith(s)), None)
    return target.with_name(target.name.removesuffix(suffix)) if asset.unpack and suffix else None


def _is_unpacked(target: Path, folder: Path, sums: Mapping[str, str]) -> bool:
    """Does the folder hold what the published archive holds? The archive itself may be gone."""
    from kovqa_core.download.archive import RECEIPT

    receipt, unpacked = read_receipt(target), _json(folder / RECEIPT).get("source", {})
    known = {name: value for name, value in sums.items() if name in receipt.get("checksums", {})}
    if not receipt or (differing(receipt["checksums"], known) and not receipt["accepted_mismatch"]):
        return False
    return (unpacked.get("bytes"), unpacked.get("modified")) == (receipt["size"], receipt["mtime_ns"])


def _unpack(target: Path, folder: Path, keep: bool, told: Told | None) -> None:
    from kovqa_core.download.archive import unpack

    if told:
        told(0, 0, f"unpacking {target.name}")
    unpack(target, folder, told)
    if not keep:
        target.unlink(missing_ok=True)


@contextlib.contextmanager
def _by_hand_instead(asset: Asset) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise AssetError(error.message, by_hand(asset)) from None


def by_hand(asset: Asset) -> str:
    """How to get an asset without us."""
    source = asset.source_of()
    pages = [asset.address(file) for file in asset.files if source.kind == "http"] or [asset.page]
    more = f" {source.by_hand}" if source.by_hand else ""
    return f"with a browser: {' '.join(pages)}, then: kovqa download {asset.name} --from FILE.{more}"


# ---------------------------------------------------------------------------- what is here


def _record_of(asset: Asset, folder: Path) -> Path:
    return folder / f".{asset.name}.asset.json"


def _record(
    asset: Asset, folder: Path, paths: list[Path], revision: str = "", files: list[str] | None = None
) -> list[Path]:
    """Write down that an asset is here: which revision, and which paths it has."""
    names = [os.path.relpath(path, folder) for path in paths]
    entry = {"asset": asset.name, "revision": revision or asset.pin, "paths": names, "files": files or []}
    write_json(_record_of(asset, folder), {**entry, "fetched": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    return paths


def _json(path: Path) -> dict[str, Any]:
    """A document of ours; empty when it is not there or was damaged."""
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _recorded(asset: Asset, folder: Path) -> list[Path]:
    """Paths of an asset that was fetched and is still here; empty when anything is missing."""
    noted = _json(_record_of(asset, folder))
    targets = [folder / name for name in noted.get("files", [])]
    here = [_unpacked(asset, target) or target for target in targets]
    paths = [folder / name for name in noted.get("paths", [])]
    return paths if all(path.exists() for path in [*here, *paths]) else []


def state(asset: Asset, output: Path | None = None) -> str:
    """ "here", how much of it is here, or ""."""
    folder = folder_of(asset, output)
    targets = [folder / file.name for file in asset.files]
    if targets:
        whole = [t.is_file() or ((f := _unpacked(asset, t)) and _is_unpacked(t, f, {})) for t in targets]
        parts = [part_of(target) for target in targets]
    else:
        whole = [bool(_recorded(asset, folder))]
        parts = list(folder.rglob("*.part")) if asset.folder and folder.is_dir() else []
    if all(whole):
        return "here"
    begun = sum(part.stat().st_size for part in parts if part.is_file())
    return (
        f"{amount(begun)} so far"
        if begun
        else f"{sum(map(bool, whole))} of {len(whole)}"
        if any(whole)
        else ""
    )


# ----------------------------------------------------------------------------- by hand


def adopt(asset: Asset, given: Path, wishes: Wishes, told: Told | None = None) -> list[Path]:
    """Take a file the user fetched by hand: check it, put it in its place, unpack it.

    Raises:
        SettingsError: no such file, or it is not clear which file of the asset it is.
        AssetError: it is not the published file.
    """
    if given.is_dir():
        raise SettingsError(f"{given} is a folder", "give the file as it came, not unpacked")
    if not given.is_file():
        raise SettingsError(f"no such file: {given}", "check the path")
    file = _which(asset, given)
    remote = asset.remote(file) if asset.source_of().kind == "http" else Remote("", magic=file.magic)
    folder = make_folder(folder_of(asset, wishes.output))
    target = folder / file.name
    sums, accepted = _checked(given, remote, wishes.allow_mismatch, told)
    with disk_errors(target):
        _link(given, target)
        write_receipt(target, target, f"by hand: {given.name}", sums, accepted)
    if into := _unpacked(asset, target):
        _unpack(target, into, wishes.keep_archive, told)
    paths = [into or target]
    return paths if asset.files else _record(asset, folder, paths)


def _which(asset: Asset, given: Path) -> File:
    """Which file of an asset this is: by name, or the only one there is."""
    if not asset.files:
        return File(name=given.name, magic="bzip2" if asset.dump else "")
    named = [file for file in asset.files if file.name == given.name]
    if not named and len(asset.files) > 1:
        names = ", ".join(file.name for file in asset.files)
        raise SettingsError(f"{given.name} is none of {asset.name}'s files", f"rename it to one of: {names}")
    return (named or asset.files)[0]


def _checked(
    given: Path, remote: Remote, allow_mismatch: bool, told: Told | None
) -> tuple[dict[str, str], bool]:
    """Checksums of a file, and whether it was taken although it is not the published one."""
    with given.open("rb") as stream:
        head = stream.read(HEAD)
    if not is_kind(head, remote.magic) or (not remote.magic and is_page(head)):
        what = "a web page" if is_page(head) else "something else"
        raise AssetError(f"{given}: not a {remote.magic or 'data'} file but {what}", "fetch it again")
    note = f"checking {given.name}"
    sums = checksums(given, remote.checksums, (lambda d, t: told(d, t, note)) if told else None)
    wrong, size = differing(sums, remote.checksums), given.stat().st_size
    if remote.size is not None and size != remote.size:
        wrong = f"{size:,} bytes, published are {remote.size:,}"
    if wrong and not allow_mismatch:
        raise AssetError(f"{given}: {wrong}", "fetch it again, or take it with --allow-hash-mismatch")
    return sums, bool(wrong)


def _link(given: Path, target: Path) -> None:
    """The same file under another name where the disk can do that, else a copy."""
    if target.exists() and target.samefile(given):
        return
    link = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        os.link(given.resolve(), link)
        link.replace(target)
    except OSError:
        with given.open("rb") as source, whole_file(target) as stream:
            shutil.copyfileobj(source, stream, 1 << 20)
