"""Where a picture lies that a data set names: by its path or its bare name, in either Unicode form."""

from __future__ import annotations

import functools
import itertools
import os
import unicodedata
import zlib
from array import array
from bisect import bisect_left
from pathlib import Path

import numpy as np

from kovqa_core.files import to_nfc


def find_image(images: Path, name: str) -> str | None:
    """The path below `images` of a picture, as this disk spells it; None when there is none.

    Args:
        images: the pictures' folder.
        name: path below it, or bare file name, NFC.
    """
    if not name:
        return None
    inside = not name.startswith("/") and ".." not in name
    if inside and os.path.isfile(os.path.join(images, name)):  # noqa: PTH113, PTH118 - called millions of times
        return name
    return _cached_listing(images).find(name)


_IMAGE_SUFFIXES = ("", ".jpg", ".png", ".jpeg", ".JPG", ".PNG")


@functools.lru_cache(maxsize=1 << 16)  # several questions about one picture follow each other
def find_image_any_suffix(images: Path, name: str) -> str | None:
    """The path below `images` of a picture named by its path, suffix or Unicode form left open.

    For folders that hold other things too: nothing is searched. None when there is none.
    """
    path = os.path.normpath(name.replace("\\", "/")) if name.strip() else ""
    folder, file = os.path.split(path)
    for suffix in _IMAGE_SUFFIXES if path else ():
        for below, bare in itertools.product(_unicode_spellings(folder), _unicode_spellings(file)):
            found = os.path.join(below, bare + suffix)  # noqa: PTH118
            if os.path.isfile(os.path.join(images, found)):  # noqa: PTH113, PTH118
                return found
    return None


def _unicode_spellings(name: str) -> dict[str, None]:
    """A name as given and in both Unicode forms, each once: archives of a Mac unpack into either."""
    return dict.fromkeys((name, to_nfc(name), unicodedata.normalize("NFD", name)))


@functools.lru_cache(maxsize=1)
def _cached_listing(images: Path) -> _FolderListing:
    return _FolderListing(images)


class _FolderListing:
    """All files below a folder, in some 60 bytes each: a million names fit every process."""

    def __init__(self, images: Path) -> None:
        names, starts, keys, owners = bytearray(), array("Q", [0]), array("I"), array("I")
        for folder, folders, files in os.walk(images):
            folders.sort()
            below = Path(folder).relative_to(images).as_posix()
            for file in sorted(files):
                path = file if below == "." else f"{below}/{file}"
                for key in {to_nfc(path), to_nfc(file)}:
                    keys.append(_name_checksum(key))
                    owners.append(len(starts) - 1)
                names += os.fsencode(path)
                starts.append(len(names))
        order = np.argsort(np.frombuffer(keys, np.uint32), kind="stable") if keys else np.zeros(0, int)
        self._names, self._starts = bytes(names), starts
        self._keys = array("I", np.array(keys, np.uint32)[order].tobytes())
        self._owners = array("I", np.array(owners, np.uint32)[order].tobytes())

    def find(self, name: str) -> str | None:
        """A path that is the name, else the first file of that bare name."""
        bare = name.rsplit("/", 1)[-1]
        same = [path for path in self._under(name) if to_nfc(path) == name]
        return next(
            iter(same or (p for p in self._under(bare) if to_nfc(p.rsplit("/", 1)[-1]) == bare)), None
        )

    def _under(self, name: str) -> list[str]:
        key, found = _name_checksum(name), []
        place = bisect_left(self._keys, key)
        while place < len(self._keys) and self._keys[place] == key:
            owner = self._owners[place]
            found.append(os.fsdecode(self._names[self._starts[owner] : self._starts[owner + 1]]))
            place += 1
        return found


def _name_checksum(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))
