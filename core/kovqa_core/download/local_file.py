"""`kovqa download --from`: a file the user fetched by hand, checked and put where a fetched one would be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kovqa_core.data.archive_members import ArchiveDamaged
from kovqa_core.download.asset_record import write_asset_record
from kovqa_core.download.checks import (
    HEAD_BYTES,
    checksum_mismatch,
    file_checksums,
    has_magic,
    is_web_page,
    size_mismatch,
)
from kovqa_core.download.fetch import FetchOptions, asset_folder, unpack_file, unpacked_folder
from kovqa_core.download.part_file import download_lock, receipt_path, write_receipt
from kovqa_core.download.table import Asset, AssetFile
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.files import atomic_file, disk_errors, make_folder, open_file, real_path
from kovqa_core.messages import message
from kovqa_core.net.request import RemoteFile
from kovqa_core.progress import OnProgress, ignore_progress


def adopt_local_file(
    asset: Asset, local_file: Path, options: FetchOptions, on_progress: OnProgress = ignore_progress
) -> list[Path]:
    """Take a file the user fetched by hand: check it, put it in its place, unpack it.

    Raises:
        SettingsError: no such file, or it is not clear which file of the asset it is.
        AssetError: it is not the published file.
    """
    if not local_file.is_file():
        raise SettingsError(
            message("download.from-missing", "no such file: {path}", path=local_file),
            message("download.from-missing.hint", "check the path"),
        )
    file = _match_asset_file(asset, local_file)
    remote = asset.remote(file) if asset.source_of().kind == "http" else RemoteFile("", magic=file.magic)
    folder = make_folder(asset_folder(asset, options.output))
    target = folder / file.name
    # Checked before anything in our folder changes.
    checksums, accepted = _check_local_file(
        local_file, remote, on_progress, allow_mismatch=options.allow_mismatch
    )
    # Until it is unpacked, too: nobody else may remove or replace the archive meanwhile.
    with download_lock(target, on_progress):
        with disk_errors(target):
            link_or_copy(local_file, target)
            write_receipt(target, target, f"by hand: {local_file.name}", checksums, accepted=accepted)
        unpacked = unpacked_folder(asset, target)
        if unpacked:
            try:
                unpack_file(target, unpacked, on_progress, keep_archive=options.keep_archive)
            except ArchiveDamaged:
                # Not finished, as if it had never been given; the user's own file stays where it is.
                if real_path(target) != real_path(local_file):
                    target.unlink(missing_ok=True)
                receipt_path(target).unlink(missing_ok=True)
                raise
        paths = [unpacked or target]
        if not asset.files:
            write_asset_record(asset, folder, paths)
    return paths


def _match_asset_file(asset: Asset, local_file: Path) -> AssetFile:
    """Which file of an asset this is: by name, or the only one there is."""
    if not asset.files:
        return AssetFile(name=local_file.name, magic="bzip2" if asset.dump else "")
    same_name = [file for file in asset.files if file.name == local_file.name]
    if not same_name and len(asset.files) > 1:
        raise SettingsError(
            message(
                "download.from-unknown-name",
                "{file} is none of {asset}'s files",
                file=local_file.name,
                asset=asset.name,
            ),
            message(
                "download.from-unknown-name.hint",
                "rename it to one of: {names}",
                names=", ".join(file.name for file in asset.files),
            ),
        )
    return (same_name or asset.files)[0]


def _check_local_file(
    local_file: Path, remote: RemoteFile, on_progress: OnProgress, *, allow_mismatch: bool
) -> tuple[dict[str, str], bool]:
    """Checksums of a file, and whether it was taken although it is not the published one."""
    with open_file(local_file) as stream:
        head = stream.read(HEAD_BYTES)
    if not has_magic(head, remote.magic) or (not remote.magic and is_web_page(head)):
        if is_web_page(head):
            kind = remote.magic or "data"
            text = message(
                "download.from-page", "{path}: not a {kind} file but a web page", path=local_file, kind=kind
            )
        else:
            kind = remote.magic
            text = message("download.from-other", "{path}: not a {kind} file", path=local_file, kind=kind)
        raise AssetError(text, message("download.fetch-again.hint", "fetch it again"))
    checksums = file_checksums(local_file, remote.checksums, on_progress)
    mismatch = size_mismatch(local_file.stat().st_size, remote.size) or checksum_mismatch(
        checksums, remote.checksums
    )
    if mismatch and not allow_mismatch:
        raise AssetError(
            message("download.from-mismatch", "{path}: {mismatch}", path=local_file, mismatch=mismatch),
            message("download.from-mismatch.hint", "fetch it again, or take it with --allow-hash-mismatch"),
        )
    return checksums, bool(mismatch)


def link_or_copy(local_file: Path, target: Path) -> None:
    """The same file under another name where the disk can do that, else a copy."""
    # Renaming one name of a file over another does nothing, and would leave the link below behind.
    if target.exists() and target.samefile(local_file):
        return
    # A second name for the same bytes costs no space, and the rename makes it appear at once.
    link = target.with_name(f".{target.name}.link")
    link.unlink(missing_ok=True)  # a killed process left it; one that lives copies then
    try:
        os.link(real_path(local_file), link)
        link.replace(target)
    # Another disk, or one without hard links (FAT): a copy, whole or not at all.
    except OSError:
        with open_file(local_file) as source, atomic_file(target) as stream:
            shutil.copyfileobj(source, stream, 1 << 20)
