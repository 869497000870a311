"""Does the name of an image lead out of the image folder? It is judged as it is written.

Tables and indexes come from others, and what they name is opened, shown in a report, sent to a server. So a name is
a path below the image folder; `..`, an absolute path (of this system or another), a home or an address need a word
of the user. Links are not looked at: data on shared disks are linked into image folders, by whoever owns those.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

from kovqa_core.errors import DataError
from kovqa_core.messages import Message, message
from kovqa_core.messages.readable_name import readable_name

_OUTSIDE = re.compile(
    r"""[/\\]                            # an absolute path, \\host\share
    | ~ (?: [^/\\]* [/\\] | $ )          # a home
    | [A-Za-z][A-Za-z0-9+.-]* : [/\\]    # C:\, file:///, https://
    | (?: .* [/\\] )? \.\. (?: [/\\] | $ )
    """,
    re.VERBOSE | re.DOTALL,
)

_WIDE_FOLDERS = ("/", "/home", "/Users")


def leads_outside(name: str) -> bool:
    r"""Is it an absolute path, a home, an address, or has it a part `..`? With `/` and `\` alike.

    Args:
        name: of an image, as a row has it.
    """
    # Called for each of millions of rows: nearly all are decided here.
    if ".." not in name and ":" not in name and name[:1] not in ("/", "\\", "~"):
        return False
    return _OUTSIDE.match(name) is not None


def has_parent_part(name: str) -> bool:
    """Has it a part `..`?"""
    return ".." in name and ".." in re.split(r"[/\\]", name)


def path_below(images: Path, name: str) -> str | None:
    """The path below the image folder of a name that is an absolute path there; None for all others.

    Args:
        images: the folder, whose own name may be a link's.
        name: without `..`, by its letters.
    """
    if not os.path.isabs(name) or has_parent_part(name):  # noqa: PTH117 - by the words of this system
        return None
    name = name.replace(os.sep, "/")
    for folder in _folder_names(images):
        if name.startswith(folder) and (below := name[len(folder) :].lstrip("/")):
            return below
    return None


@functools.lru_cache(maxsize=64)
def _folder_names(images: Path) -> tuple[str, ...]:
    """A folder's absolute names, as the user typed it and with links resolved, each with a slash at its end."""
    names = (os.path.abspath(images), os.path.realpath(images))  # noqa: PTH100
    return tuple(dict.fromkeys(name.replace(os.sep, "/").rstrip("/") + "/" for name in names))


def is_inside(images: Path, name: str) -> bool:
    """Does a name stay in the image folder, as it is written?"""
    return not leads_outside(name) or path_below(images, name) is not None


def outside_image_error(place: str, name: str, images: Path, hint: Message, others: int = 0) -> DataError:
    """The error for an image outside the image folder, which nobody allowed.

    Args:
        place: the row: its file and line, or id.
        name: what the row calls the image.
        images: the folder.
        hint: the flag that allows it.
        others: further rows of which the same is true.
    """
    more = message("data.outside-others", " (and {others:,} more)", others=others)
    return DataError(
        message(
            "data.image-outside",
            "{place}: image {name} lies outside the image folder {folder}{more}",
            place=place, name=readable_name(name), folder=images, more=more if others else "",
        ),
        hint,
    )  # fmt: skip


def is_too_wide(images: Path) -> bool:
    """Is it the folder of all files, or of all homes? Nobody keeps images right there."""
    return os.path.realpath(images) in _WIDE_FOLDERS


def wide_folder_error(place: Path, images: Path, hint: Message) -> DataError:
    """The error for an image folder that nobody may mean, in a file that may be another's."""
    return DataError(
        message(
            "data.image-folder-too-wide",
            "{place} says that its images lie anywhere below {folder}, where much more lies",
            place=place, folder=images,
        ),
        hint,
    )  # fmt: skip
