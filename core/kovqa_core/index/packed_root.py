"""Raw data that are still packed: said in one line, with the command that unpacks them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from kovqa_core.data.folder_walk import walk_folders
from kovqa_core.data.tables.tar_files import TAR_SUFFIXES, is_tar_file
from kovqa_core.download.archive_format import archive_format, archive_stem, is_archive_name
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.messages import Message, message, shell_quote

FolderNames = Iterator[tuple[str, list[str]]]  # a folder below the root, its files

_FOREIGN_SUFFIXES = (".7z", ".rar", ".alz", ".egg", ".xz")  # archives that kovqa does not read
_USUAL_SUFFIXES = (".jpg", ".jpeg", ".png", ".json")  # most files of a data set
# Of Office, of OpenDocument and HWPX, of Apple's Numbers.
_DOCUMENT_MEMBERS = frozenset(("[Content_Types].xml", "mimetype", "Index/Document.iwa"))
# What lies beside a data set's archives and is not data.
_PAPER_SUFFIXES = (".pdf", ".txt", ".md", ".hwp", ".hwpx", ".docx")


def collect_archives(folders: FolderNames, archives: list[str]) -> FolderNames:
    """Pass on what a walk finds (`walk_folders`), and note the archives among it: their paths below its root."""
    for below, names in folders:
        archives += (
            f"{below}/{name}" if below else name
            for name in names
            if not name.lower().endswith(_USUAL_SUFFIXES)  # of millions of files
            and (is_archive_name(name) or name.lower().endswith(_FOREIGN_SUFFIXES))
        )
        yield below, names


def packed_notes(root: Path, archives: Sequence[str]) -> tuple[Message, ...]:
    """What to say of archives that lie among unpacked data, if the folder that one of them unpacks to is not there.

    Args:
        root: of the raw data.
        archives: their paths below it.
    """
    packed = [path for path in archives if not _is_unpacked(root / path)]
    if not packed:
        return ()
    return (
        message(
            "index.archives-not-read", "{count:,} archives below {root} are not read (first: {first}); to unpack them: "
            "kovqa download --from {quoted}", count=len(packed), root=root, first=packed[0], quoted=shell_quote(root),
        ),
    )  # fmt: skip


def _is_unpacked(archive: Path) -> bool:
    return archive.with_name(archive_stem(archive.name)).is_dir()


def missing_folder_hint(folder: Path) -> Message | None:
    """What to do about a folder that is not there, where an archive beside it may hold it; None where there is none.

    Args:
        folder: of images.
    """
    try:
        names = sorted(path.name for path in folder.parent.iterdir() if path.is_file())
    except OSError:
        return None
    archives = [name for name in names if is_archive_name(name)]
    if not archives:
        return None
    first = next(
        (name for name in archives if to_nfc(archive_stem(name)) == to_nfc(folder.name)), archives[0]
    )
    archive = shell_quote(folder.with_name(first))
    return message(
        "index.folder-still-packed.hint", "unpack {archive}: kovqa download --from {archive}", archive=archive
    )


def require_unpacked(root: Path, *, reads_tars: bool = False) -> None:
    """See that raw data are not an archive, or a folder of nothing but archives.

    Args:
        root: the folder, or the table.
        reads_tars: are tars the data (a webdataset)?

    Raises:
        DataError: they are; says which, and the command that unpacks them.
    """
    if root.is_file():
        _refuse_archive(root, reads_tars=reads_tars)
    elif root.is_dir():
        _refuse_folder_of_archives(root, reads_tars=reads_tars)


def _refuse_archive(path: Path, *, reads_tars: bool) -> None:
    try:
        format_name = archive_format(path)
    except OSError:  # the source says what is wrong with it
        return
    # Documents are zips too: tables, or named by the reader of tables, as a single packed file is.
    if not format_name or path.suffix.lower() in (".xlsx", ".xlsm") or _is_document(path):
        return
    if reads_tars and format_name == "tar" and is_tar_file(path):
        return
    if format_name == "xz" and not path.name.lower().endswith((".tar.xz", ".txz")):
        return
    if format_name not in ("ZIP", "tar"):
        raise DataError(
            message(
                "index.root-foreign-archive", "{path} is an archive: {format}", path=path, format=format_name
            ),
            message("index.root-by-hand.hint", "unpack it by hand (7-Zip), and name the folder"),
        )
    raise DataError(
        message("index.root-archive", "{path} is a {format} archive", path=path, format=format_name),
        message(
            "index.root-archive.hint", "unpack it: kovqa download --from {path}; then name the folder: --root {folder}",
            path=shell_quote(path), folder=shell_quote(path.with_name(archive_stem(path.name))),
        ),
    )  # fmt: skip


def _is_document(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return not _DOCUMENT_MEMBERS.isdisjoint(archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def _refuse_folder_of_archives(folder: Path, *, reads_tars: bool) -> None:
    archives, foreign = 0, 0
    for _, names in walk_folders(folder, skip_unreadable=True):
        for name in names:
            if reads_tars and name.lower().endswith(TAR_SUFFIXES):
                return
            if is_archive_name(name):
                archives += 1
            elif name.lower().endswith(_FOREIGN_SUFFIXES):
                foreign += 1
            # The first file that may be data ends it: a set has millions.
            elif not name.lower().endswith(_PAPER_SUFFIXES):
                return
    if not archives and not foreign:
        return
    text = message(
        "index.root-archives", "{folder} holds {count:,} archives and nothing unpacked",
        folder=folder, count=archives + foreign,
    )  # fmt: skip
    if not archives:
        raise DataError(text, message("index.root-archives-by-hand.hint", "unpack them by hand (7-Zip)"))
    raise DataError(
        text,
        message(
            "index.root-archives.hint", "unpack them: kovqa download --from {folder}; then run this again",
            folder=shell_quote(folder),
        ),
    )  # fmt: skip
