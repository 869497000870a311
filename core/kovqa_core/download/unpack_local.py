"""`kovqa download --from` without a name: any archive, or a folder of them as AI-Hub gives it, unpacked safely.

`X.zip` becomes the folder `X`, archives inside it too. What is unpacked already is not unpacked again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kovqa_core.download.archive import UNPACK_RECEIPT, unpack_archive
from kovqa_core.download.archive_format import IGNORED_NAMES, archive_stem, is_archive_name
from kovqa_core.download.local_file import link_or_copy
from kovqa_core.download.split_archive import archive_volumes
from kovqa_core.errors import SettingsError
from kovqa_core.files import disk_errors, to_nfc
from kovqa_core.messages import message
from kovqa_core.progress import OnProgress, ignore_progress


def unpack_local_archives(
    source: Path, output: Path | None = None, on_progress: OnProgress = ignore_progress
) -> list[Path]:
    """Unpack an archive, or every archive below a folder; the archives stay.

    Args:
        source: the archive, any of its volumes, or the folder.
        output: where to; None: beside each archive. Of a folder, its other files are linked or copied there.

    Returns:
        The folders that were unpacked to.

    Raises:
        SettingsError: nothing to unpack, or a folder in the way.
        DataError: an archive that cannot be unpacked; those before it are unpacked.
    """
    if not source.is_dir():
        folder = output or source.with_name(archive_stem(source.name))
        unpack_archive(source, folder, on_progress, nested=True)
        return [folder]
    archives = list(_archives_below(source))
    if not archives:
        raise SettingsError(
            message("download.nothing-to-unpack", "{folder} holds no archive", folder=source),
            message(
                "download.nothing-to-unpack.hint", "name an archive (zip, tar, tar.gz), or a folder of them"
            ),
        )
    folders = []
    for path in archives:
        inside = path.parent.relative_to(source)
        folder = (output or source) / to_nfc(inside.as_posix()) / archive_stem(path.name)
        unpack_archive(path, folder, on_progress, nested=True)
        folders.append(folder)
    if output:
        _link_other_files(source, output)
    return folders


def _archives_below(folder: Path) -> Iterator[Path]:
    """Archives that are not inside an unpacked one, the first volume of each."""
    seen: set[Path] = set()
    for path in _files_below(folder):
        if is_archive_name(path.name) and path not in seen:
            volumes = archive_volumes(path)
            seen.update(volumes)
            yield path


def _files_below(folder: Path) -> Iterator[Path]:
    """Files in order, without hidden ones and without what was unpacked earlier."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and not Path(place, name, UNPACK_RECEIPT).is_file()
        )
        yield from (
            Path(place, name) for name in sorted(names) if name[0] != "." and name not in IGNORED_NAMES
        )


def _link_other_files(source: Path, output: Path) -> None:
    for path in _files_below(source):
        target = output / to_nfc(path.relative_to(source).as_posix())
        if not is_archive_name(path.name) and not path.is_relative_to(output):
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(path, target)
