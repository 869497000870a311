"""Images that lie in tar files, read where they lie: `shard-000.tar/사진/1.jpg` is a path like any other.

A tar is listed once in a process, by its headers alone; of each file some 24 bytes are kept, so that a million of them fit
into every loader process. The tar is opened for each image anew: no process shares a place in a file with another.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kovqa_core.data.tar_stream import list_tar_members
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.messages import message

if TYPE_CHECKING:
    import numpy as np

TAR_SUFFIX = ".tar"
_TAR_PART = re.compile(r"\.tar/", re.IGNORECASE)
_MOST_LISTINGS = 4096


@dataclass(frozen=True)
class TarPlace:
    """Where a file lies in a tar.

    Attributes:
        tar: the tar.
        start: of its first byte.
        size: bytes.
    """

    tar: Path
    start: int
    size: int


@dataclass(frozen=True, eq=False)
class _TarListing:
    """The files of a tar: checksums of their names, sorted [files], with start and size of each [files, 2]."""

    names: np.ndarray
    places: np.ndarray


def member_name(name: str) -> str:
    """The name of a member as paths have it: NFC, without `./`."""
    return str(PurePosixPath(to_nfc(name)))


def find_in_tar(path: Path) -> TarPlace | None:
    """Where a file lies whose path leads into a tar; None: it leads into none, or is not there.

    Raises:
        DataError: the tar is damaged.
        OSError: it may not be read.
    """
    split = _split_at_tar(str(path))
    return _place_in_tar(*split) if split else None


def read_tar_place(place: TarPlace) -> bytes:
    """The bytes of a file in a tar.

    Raises:
        DataError: the tar has become shorter.
        OSError: it may not be read.
    """
    with place.tar.open("rb") as stream:
        stream.seek(place.start)
        data = stream.read(place.size)
    if len(data) < place.size:
        raise DataError(
            message("data.tar-shorter", "{tar} has become shorter since it was listed", tar=place.tar),
            message("data.broken-json.hint", "fetch or unpack it again"),
        )
    return data


def folder_on_disk(path: str) -> str:
    """The folder that an image lies in, or the tar that holds it."""
    split = _split_at_tar(path)
    return os.path.dirname(split[0] if split else path)  # noqa: PTH120


def _split_at_tar(path: str) -> tuple[str, str] | None:
    """A path's tar and the name in it: the first part that ends with `.tar` and is a file."""
    # Asked of every image that is not there: paths without a tar cost one search.
    for found in _TAR_PART.finditer(path):
        tar = path[: found.end() - 1]
        if os.path.isfile(tar):  # noqa: PTH113
            return tar, path[found.end() :]
    return None


def _place_in_tar(tar: str, name: str) -> TarPlace | None:
    status = os.stat(tar)  # noqa: PTH116
    listing = _list_tar(tar, status.st_size, status.st_mtime_ns)
    if isinstance(listing, DataError):
        raise listing
    key = _name_checksum(member_name(name))
    at = int(listing.names.searchsorted(listing.names.dtype.type(key)))
    if at == len(listing.names) or listing.names[at] != key:
        return None
    start, size = listing.places[at].tolist()
    return TarPlace(Path(tar), start, size)


@lru_cache(maxsize=_MOST_LISTINGS)
def _list_tar(tar: str, size: int, changed: int) -> _TarListing | DataError:
    """The files of a tar of this size and time; what is wrong with it is kept, too: all its images are asked for."""
    import numpy as np

    names, places = [], []
    with open(tar, "rb") as stream:  # noqa: PTH123
        try:
            for member, start in list_tar_members(stream, tar):
                if not member.folder and member.strange_type is None:
                    names.append(_name_checksum(member_name(member.name)))
                    places.append((start, member.size))
        except DataError as error:
            return error
    keys = np.array(names, np.uint64)
    # Of several files of one name the last counts, as for whoever unpacks them.
    order = np.argsort(keys, kind="stable")[::-1]
    keys, first = np.unique(keys[order], return_index=True)
    return _TarListing(keys, np.array(places, np.int64).reshape(-1, 2)[order][first])


def _name_checksum(name: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )
