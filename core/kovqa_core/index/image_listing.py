"""The names of all files below an image folder, in little memory."""

from __future__ import annotations

import os
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from kovqa_core.data.folder_walk import walk_folders
from kovqa_core.files import to_nfc
from kovqa_core.messages.readable_name import readable_name


class FolderListing:
    """All files below a folder, in some 60 bytes each: a million names fit into every process.

    A dict of a million paths takes some 200 MB. Here all paths lie in one bytes object, file i's from
    `_starts[i]` to `_starts[i + 1]`; `_keys` are sorted CRC-32 of the bare names without suffix, `_owners` the
    numbers of their files, so that a name is found by bisection. Different names may share a checksum, so the
    names themselves are compared too.
    """

    def __init__(self, images: Path) -> None:
        import numpy as np  # 0.07 s that commands save which only need the table of data sets

        names, starts, keys = bytearray(), array("Q", [0]), array("I")
        for below, files in walk_folders(images, skip_unreadable=True):
            prefix = os.fsencode(f"{below}/" if below else "")
            for file in files:
                keys.append(_name_checksum(_stem(file)))
                # As the disk spells it, even where that is not UTF-8: the path must open the file.
                names += prefix + os.fsencode(file)
                starts.append(len(names))
        # Stable: of equal checksums, files stay in the order of the walk.
        order = np.argsort(np.frombuffer(keys, np.uint32), kind="stable") if keys else np.zeros(0, int)
        self._names, self._starts = bytes(names), starts
        self._keys = array("I", np.array(keys, np.uint32)[order].tobytes())
        self._owners = array("I", order.astype(np.uint32).tobytes())

    def files_of_stem(self, stem: str) -> Iterator[str]:
        """Paths of the files of a bare name (NFC), whatever their suffix and the case of ASCII letters; some others too."""
        key = _name_checksum(stem.lower())
        position = bisect_left(self._keys, key)
        while position < len(self._keys) and self._keys[position] == key:
            owner = self._owners[position]
            yield os.fsdecode(self._names[self._starts[owner] : self._starts[owner + 1]])
            position += 1


def _stem(file: str) -> str:
    # In NFC, because labels are: a Mac's archives are not.
    name = file if file.isascii() else to_nfc(readable_name(file))
    return os.path.splitext(name)[0].lower()  # noqa: PTH122


def _name_checksum(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))
