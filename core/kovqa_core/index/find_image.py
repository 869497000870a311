"""Find the image that a data set names: by its path or its bare name, in either Unicode form."""

from __future__ import annotations

import functools
import itertools
import os
import unicodedata
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from kovqa_core.files import to_nfc


def find_image(images: Path, name: str) -> str | None:
    """The path below `images` of an image, as this disk spells it; None when there is none.

    Args:
        images: the image folder.
        name: path below it, or bare file name, NFC.
    """
    if not name:
        return None
    # A label must not lead out of the image folder: joined with an absolute path, the folder would not count at all.
    is_inside = not name.startswith("/") and ".." not in name
    if is_inside and os.path.isfile(os.path.join(images, name)):  # noqa: PTH113, PTH118 - called millions of times
        return name
    return _cached_listing(images).find(name)


_IMAGE_SUFFIXES = ("", ".jpg", ".png", ".jpeg", ".JPG", ".PNG")


@functools.lru_cache(maxsize=1 << 16)  # several questions about one image follow each other
def find_image_any_suffix(images: Path, name: str) -> str | None:
    """The path below `images` of an image named by its path, with any suffix, in any Unicode form.

    None when there is none. No other folder is searched, for `images` may be one that holds other things.
    """
    path = os.path.normpath(name.replace("\\", "/")) if name.strip() else ""
    folder, file = os.path.split(path)
    # "" first: a name that has its suffix already is the usual case.
    for suffix in _IMAGE_SUFFIXES if path else ():
        for below, bare in itertools.product(_unicode_spellings(folder), _unicode_spellings(file)):
            candidate = os.path.join(below, bare + suffix)  # noqa: PTH118
            if os.path.isfile(os.path.join(images, candidate)):  # noqa: PTH113, PTH118
                return candidate
    return None


def _unicode_spellings(name: str) -> dict[str, None]:
    """A name as it is and in both Unicode forms, each once: archives of a Mac unpack into either."""
    return dict.fromkeys((name, to_nfc(name), unicodedata.normalize("NFD", name)))


@functools.lru_cache(maxsize=1)
def _cached_listing(images: Path) -> _FolderListing:
    return _FolderListing(images)


class _FolderListing:
    """All files below a folder, in some 60 bytes each: a million names fit into every process.

    A dict of a million paths takes some 200 MB. Here all paths lie in one bytes object, file i's from
    `_starts[i]` to `_starts[i + 1]`; `_keys` are sorted CRC-32 of paths and bare names, `_owners` the numbers
    of their files, so that a name is found by bisection. Different names may share a checksum, so the names
    themselves are compared too.
    """

    def __init__(self, images: Path) -> None:
        import numpy as np  # 0.07 s that commands save which only need the table of data sets

        names, starts, keys, owners = bytearray(), array("Q", [0]), array("I"), array("I")
        for folder, folders, files in os.walk(images):
            # `os.walk` gives the order of the disk; sorted in place, it decides which file of a bare name comes first.
            folders.sort()
            below = Path(folder).relative_to(images).as_posix()
            for file in sorted(files):
                path = file if below == "." else f"{below}/{file}"
                # Under both, because labels name a path or a bare name; in NFC, because they do (`find`).
                for key in {to_nfc(path), to_nfc(file)}:
                    keys.append(_name_checksum(key))
                    owners.append(len(starts) - 1)
                # As the disk spells it, even where that is not UTF-8: the path must open the file.
                names += os.fsencode(path)
                starts.append(len(names))
        # Stable: of equal checksums, files stay in sorted order.
        order = np.argsort(np.frombuffer(keys, np.uint32), kind="stable") if keys else np.zeros(0, int)
        self._names, self._starts = bytes(names), starts
        self._keys = array("I", np.array(keys, np.uint32)[order].tobytes())
        self._owners = array("I", np.array(owners, np.uint32)[order].tobytes())

    def find(self, name: str) -> str | None:
        """A path that is the name, else the first file of that bare name."""
        bare = name.rsplit("/", 1)[-1]
        # Checksums only narrow it down. A path wins over a bare name; of equal names the first in sorted order.
        same_path = (path for path in self._candidates(name) if to_nfc(path) == name)
        same_name = (path for path in self._candidates(bare) if to_nfc(path.rsplit("/", 1)[-1]) == bare)
        return next(itertools.chain(same_path, same_name), None)

    def _candidates(self, name: str) -> Iterator[str]:
        """Paths of the files of which the path or the bare name has the checksum of `name`."""
        key = _name_checksum(name)
        position = bisect_left(self._keys, key)
        while position < len(self._keys) and self._keys[position] == key:
            owner = self._owners[position]
            yield os.fsdecode(self._names[self._starts[owner] : self._starts[owner + 1]])
            position += 1


def _name_checksum(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))
