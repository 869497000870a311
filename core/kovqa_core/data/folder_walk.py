"""Walk a folder as people fill it: links are followed once, what systems leave in folders is passed over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kovqa_core.errors import DataError
from kovqa_core.messages import message
from kovqa_core.messages.system_reasons import system_reason

# What Windows, macOS, file servers and Hugging Face's `datasets` put beside people's files, in lower case.
_SYSTEM_NAMES = frozenset(
    ["thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "$recycle.bin",
     "system volume information", "lost+found", "dataset_info.json", "icon\r"]
)  # fmt: skip


def is_system_name(name: str) -> bool:
    """Does a system keep this file or folder for itself? All that is hidden (`._1.png`, `.DS_Store`), and a few names."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def walk_folders(root: Path, *, skip_unreadable: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Every folder below a root: its path there ("" for the root itself, "/" between names), its files' names.

    Sorted. A folder is walked once, however many links lead to it and though they lead in a circle: by its own
    name where it has one below the root, else by its first link. Links to files are files; links that lead
    nowhere are nothing.

    Args:
        root: the folder to begin with.
        skip_unreadable: pass over folders below it that may not be read.

    Raises:
        DataError: a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    # Links wait until all that is reached without them has its own name.
    waiting, links = [""], list[str]()
    while waiting or links:
        if not waiting:
            links.sort(reverse=True)
            waiting.append(links.pop())
        below = waiting.pop()
        folder = f"{root}/{below}" if below else str(root)
        try:
            status = os.stat(folder)  # noqa: PTH116
            place = (status.st_dev, status.st_ino)
            if place in seen:
                continue
            seen.add(place)
            files, folders, linked = _scan_folder(folder)
        except OSError as error:
            if skip_unreadable and below:
                continue
            raise DataError(
                message(
                    "data.cannot-read-folder", "cannot read {folder}: {problem}",
                    folder=folder, problem=system_reason(error),
                ),
                message("data.cannot-read-folder.hint", "check the path, and who may read it"),
            ) from None  # fmt: skip
        yield below, files
        prefix = f"{below}/" if below else ""
        waiting += [prefix + name for name in reversed(folders)]
        links += [prefix + name for name in linked]


def _scan_folder(folder: str) -> tuple[list[str], list[str], list[str]]:
    """Names of a folder's files, folders and links to folders, each sorted."""
    files, folders, linked = [], [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_system_name(entry.name):
                continue
            if entry.is_symlink():
                # Not the entry's own methods: for a link to itself they raise.
                if os.path.isdir(entry.path):  # noqa: PTH112
                    linked.append(entry.name)
                elif os.path.isfile(entry.path):  # noqa: PTH113
                    files.append(entry.name)
            elif entry.is_dir():
                folders.append(entry.name)
            elif entry.is_file():
                files.append(entry.name)
    return sorted(files), sorted(folders), sorted(linked)


def walk_files(root: Path) -> Iterator[str]:
    """Paths of all files below a folder, "/" between names; see `walk_folders`."""
    for below, names in walk_folders(root):
        yield from (f"{below}/{name}" if below else name for name in names)
