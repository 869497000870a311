"""`kovqa download`: an asset of the table -> files in their place, checked and unpacked.

One function per type of source finds out what to fetch (`SOURCE_FETCHERS`); what follows is the same for all.
An archive is unpacked into a folder of its name and then removed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kovqa_core.download import resumable
from kovqa_core.download.asset_record import (
    AssetRecord,
    asset_record_path,
    read_asset_record,
    write_asset_record,
)
from kovqa_core.download.checks import checksum_mismatch, format_bytes
from kovqa_core.download.members import check_disk_space
from kovqa_core.download.part_file import damaged_path, part_file_path, read_receipt, receipt_path
from kovqa_core.download.table import Asset, AssetFile
from kovqa_core.errors import AssetError, DataError, SettingsError
from kovqa_core.files import make_folder
from kovqa_core.messages import Message, message, worded_message
from kovqa_core.net.request import Refused, RemoteFile
from kovqa_core.paths import kovqa_home
from kovqa_core.progress import OnProgress, Progress, ignore_progress

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


def fetch_asset(asset: Asset, options: FetchOptions, on_progress: OnProgress = ignore_progress) -> list[Path]:
    """Fetch an asset; what is here already is not fetched again.

    Returns:
        What to use: files, unpacked folders, or the folder of a repository or AI-Hub set.

    Raises:
        AssetError: it cannot be had; says why, and what to do by hand.
        MachineError: the disk has no room.
    """
    if options.files and not asset.key:
        raise SettingsError(
            message(
                "download.files-not-aihub", "--files is for AI-Hub's sets, {asset} is none", asset=asset.name
            ),
            message("download.files-not-aihub.hint", "leave it out"),
        )
    folder = make_folder(asset_folder(asset, options.output))
    with _suggest_manual_download(asset):
        return SOURCE_FETCHERS[asset.source_of().kind](asset, folder, options, on_progress)


# ---------------------------------------------------------------------------- types of sources


def _fetch_http(asset: Asset, folder: Path, options: FetchOptions, on_progress: OnProgress) -> list[Path]:
    remotes = {file.name: asset.remote(file) for file in asset.files}
    return _fetch_remote_files(remotes, asset, folder, options, on_progress)


def _fetch_kowiki(asset: Asset, folder: Path, options: FetchOptions, on_progress: OnProgress) -> list[Path]:
    from kovqa_core.download import kowiki

    fetched = _recorded_paths(asset, folder)
    if fetched and not asset.pin:
        return fetched  # a newer dump is another one: asked for by its date
    remotes = kowiki.kowiki_remotes(asset, folder, on_progress)
    paths = _fetch_remote_files(remotes, asset, folder, options, on_progress)
    write_asset_record(asset, folder, paths)
    return paths


def _fetch_hub(asset: Asset, folder: Path, options: FetchOptions, on_progress: OnProgress) -> list[Path]:
    from kovqa_core.download import hub

    if hub.is_hub_offline():
        if not (fetched := _recorded_paths(asset, folder)):
            raise _offline_error(asset, folder)
        return fetched
    listing = hub.hub_listing(asset, on_progress)
    on_progress(Progress(listing.summary(asset.repo), is_note=True))
    # A gated repository lists its files to everybody and refuses them one by one (docs/sources/datasets.md, D29).
    with hub.explain_hub_refusal(asset), hub.explain_unreachable_hub(asset):
        _fetch_remote_files(listing.files, asset, folder, options, on_progress)
    write_asset_record(asset, folder, [folder], listing.commit, list(listing.files))
    return [folder]


def _offline_error(asset: Asset, folder: Path) -> AssetError:
    if asset_record_path(asset, folder).exists():
        text = message(
            "download.offline-incomplete",
            "a file of {repo} is not in {folder}, and HF_HUB_OFFLINE is set",
            repo=asset.repo,
            folder=folder,
        )
    else:
        text = message(
            "download.offline-missing",
            "{repo} is not in {folder}, and HF_HUB_OFFLINE is set",
            repo=asset.repo,
            folder=folder,
        )
    return AssetError(text, message("download.offline.hint", "unset it to fetch"))


def _fetch_drive(asset: Asset, folder: Path, options: FetchOptions, on_progress: OnProgress) -> list[Path]:
    from kovqa_core.download import drive

    def fetch(file: AssetFile, target: Path) -> None:
        link = file.at.removeprefix("drive:")
        drive.fetch_drive_file(
            link, target, on_progress, asset.name, file.magic, allow_mismatch=options.allow_mismatch
        )

    return [
        _fetch_and_unpack(asset, folder / file.name, {}, options, on_progress, partial(fetch, file))
        for file in asset.files
    ]


def _fetch_aihub(asset: Asset, folder: Path, options: FetchOptions, on_progress: OnProgress) -> list[Path]:
    from kovqa_core.download import aihub

    for path in aihub.fetch_aihub_files(asset.key, folder, options.files or None, on_progress):
        if unpacked := unpacked_folder(asset, path):
            # Without checksums, the archives are the proof of what is here: they stay.
            unpack_fetched_file(path, unpacked, on_progress, keep_archive=True)
    write_asset_record(asset, folder, [folder])
    return [folder]


SourceFetcher = Callable[[Asset, Path, FetchOptions, OnProgress], list[Path]]
SOURCE_FETCHERS: dict[str, SourceFetcher] = {
    "http": _fetch_http,
    "kowiki": _fetch_kowiki,
    "hub": _fetch_hub,
    "drive": _fetch_drive,
    "aihub": _fetch_aihub,
}


# -------------------------------------------------------------------------- the same for all


def _fetch_remote_files(
    remotes: Mapping[str, RemoteFile],
    asset: Asset,
    folder: Path,
    options: FetchOptions,
    on_progress: OnProgress,
) -> list[Path]:
    """Fetch files one after the other; each is unpacked before the next one needs room."""
    # Archives are unpacked and removed one by one, so the sum of their sizes is not what is needed at once.
    sizes = (_missing_bytes(remote, folder / name) for name, remote in remotes.items())
    check_disk_space(folder, sum(sizes) if not asset.unpack else 0)

    def fetch(remote: RemoteFile, target: Path) -> None:
        resumable.fetch_file(remote, target, on_progress, allow_mismatch=options.allow_mismatch)

    return [
        _fetch_and_unpack(
            asset, folder / name, remote.checksums, options, on_progress, partial(fetch, remote)
        )
        for name, remote in remotes.items()
    ]


def _missing_bytes(remote: RemoteFile, target: Path) -> int:
    present = next((p.stat().st_size for p in (target, part_file_path(target)) if p.exists()), 0)
    return max(0, (remote.size or 0) - present)


def _fetch_and_unpack(
    asset: Asset,
    target: Path,
    checksums: Mapping[str, str],
    options: FetchOptions,
    on_progress: OnProgress,
    fetch: Callable[[Path], None],
) -> Path:
    """One file where it belongs: the file itself, or the folder it unpacks to."""
    folder = unpacked_folder(asset, target)
    if folder is None:
        fetch(target)
        return target
    # An archive that is still here is checked again: kept on purpose, or left by a kill before its removal.
    if not (_is_unpacked(target, folder, checksums) and not target.exists()):
        fetch(target)
        unpack_fetched_file(
            target, folder, on_progress, keep_archive=options.keep_archive, is_published=bool(checksums)
        )
    return folder


def unpacked_folder(asset: Asset, target: Path) -> Path | None:
    """The folder that an archive unpacks to; None for what stays a file."""
    suffix = next((s for s in _ARCHIVE_SUFFIXES if target.name.endswith(s)), None)
    return target.with_name(target.name.removesuffix(suffix)) if asset.unpack and suffix else None


def _is_unpacked(target: Path, folder: Path, checksums: Mapping[str, str]) -> bool:
    """Does the folder hold what the published archive holds? The archive itself may be gone.

    Two receipts answer it: that of the archive (its checksums, size and time of change) and that of the
    folder (size and time of change of the archive it was unpacked from).
    """
    from kovqa_core.download.archive import read_unpack_receipt

    receipt, unpacked = read_receipt(target), read_unpack_receipt(folder)
    if not receipt or not unpacked:
        return False
    # Only checksums that the receipt has can be compared: the table may have gained one since.
    comparable = {name: value for name, value in checksums.items() if name in receipt.checksums}
    if checksum_mismatch(receipt.checksums, comparable) and not receipt.accepted_mismatch:
        return False
    return (unpacked.source.bytes, unpacked.source.modified) == (receipt.size, receipt.mtime_ns)


def unpack_file(target: Path, folder: Path, on_progress: OnProgress, *, keep_archive: bool) -> None:
    """Unpack an archive, and remove it unless it is to be kept."""
    from kovqa_core.download.archive import unpack_archive

    on_progress(Progress(message("download.unpacking", "unpacking {file}", file=target.name)))
    unpack_archive(target, folder, on_progress)
    if not keep_archive:
        target.unlink(missing_ok=True)


def unpack_fetched_file(
    target: Path,
    folder: Path,
    on_progress: OnProgress,
    *,
    keep_archive: bool,
    is_published: bool = False,
) -> None:
    """Unpack an archive just fetched; one that is damaged is not finished: the next run fetches it again.

    Args:
        is_published: a checksum has shown that the archive is the published one: fetching it again is of no use.

    Raises:
        AssetError: it is damaged; kept aside.
        DataError: it is damaged as it was published, or nobody here can unpack it.
    """
    from kovqa_core.data.archive_members import ArchiveDamaged

    aside = damaged_path(target)
    try:
        unpack_file(target, folder, on_progress, keep_archive=keep_archive)
        aside.unlink(missing_ok=True)  # a whole one has come since
    except ArchiveDamaged as error:
        if is_published:
            raise DataError(
                message("download.damaged-as-published", "{error}; so it was published", error=error.message),
                message(
                    "download.damaged-as-published.hint", "tell its publisher, or unpack what can be, by hand"
                ),
            ) from None
        target.replace(aside)
        receipt_path(target).unlink(missing_ok=True)
        raise AssetError(
            message(
                "download.damaged-aside", "{error}; kept aside as {aside}", error=error.message, aside=aside
            ),
            message("download.damaged-aside.hint", "run the same command again to fetch it anew"),
        ) from None


@contextlib.contextmanager
def _suggest_manual_download(asset: Asset) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise AssetError(error.message, manual_instructions(asset)) from None


def manual_instructions(asset: Asset) -> Message:
    """How to get an asset without us."""
    source = asset.source_of()
    # A source of another type has no address per file that a browser could open.
    pages = [asset.address(file) for file in asset.files if source.kind == "http"] or [asset.page]
    how = message(
        "download.by-hand.hint",
        "with a browser: {pages}, then: kovqa download {asset} --from FILE",
        pages=" ".join(pages),
        asset=asset.name,
    )
    if not source.by_hand:
        return how
    more = worded_message(source.by_hand, ko=source.ko.by_hand)
    return message("download.by-hand-more.hint", "{how}. {more}", how=how, more=more)


# ---------------------------------------------------------------------------- what is here


def _recorded_paths(asset: Asset, folder: Path) -> list[Path]:
    """Paths of an asset that was fetched and is still here; empty when anything is missing."""
    record = read_asset_record(asset, folder) or AssetRecord()
    targets = [folder / name for name in record.files]
    unpacked = [unpacked_folder(asset, target) or target for target in targets]
    paths = [folder / name for name in record.paths]
    return paths if all(path.exists() for path in [*unpacked, *paths]) else []


def asset_state(asset: Asset, output: Path | None = None) -> str:
    """ "here", how much of it is here, or ""; a value of `kovqa download --list --json`, so never translated."""
    folder = asset_folder(asset, output)
    targets = [folder / file.name for file in asset.files]
    if targets:
        complete = [_is_file_or_unpacked(asset, target) for target in targets]
        # An archive that was fetched and could not be unpacked is only a beginning.
        not_unpacked = [target for target, whole in zip(targets, complete, strict=True) if not whole]
        partial_files = [*map(part_file_path, targets), *not_unpacked]
    else:
        complete = [bool(_recorded_paths(asset, folder))]
        partial_files = list(folder.rglob("*.part")) if asset.folder and folder.is_dir() else []
    if all(complete):
        return "here"
    if begun := sum(path.stat().st_size for path in partial_files if path.is_file()):
        return f"{format_bytes(begun)} so far"
    return f"{sum(complete)} of {len(complete)}" if any(complete) else ""


def _is_file_or_unpacked(asset: Asset, target: Path) -> bool:
    folder = unpacked_folder(asset, target)
    return target.is_file() if folder is None else _is_unpacked(target, folder, {})
