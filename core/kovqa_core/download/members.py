"""What a member of an archive may be called and how much it may hold: one rule for zip, tar and AI-Hub's stream.

Source: docs/sources/datasets.md, D4.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from kovqa_core.download.checks import format_bytes
from kovqa_core.errors import DataError, MachineError
from kovqa_core.files import to_nfc

MAX_MEMBERS = (
    2_000_000  # the largest known set has 1.35 million pictures, and spreads them over many archives
)
MAX_UNPACKED_BYTES = 4 << 40  # whole AI-Hub sets are below 4 TiB: a size above it is a lie or an attack
MAX_COMPRESSION_RATIO = 250  # label JSON packs 10 to 40 times; a bomb 1,000 times and more
RATIO_FREE_BYTES = (
    16 << 20
)  # bytes below which no ratio is looked at: a blank picture packs 1,000 times, and harms nobody
MAX_NAME_BYTES = 255  # bytes in one part of a path: what common disks store

_DRIVE_LETTER = re.compile(r"[A-Za-z]:")
_CONTROL_CHARS = re.compile(r"[\x00-\x1f\x7f]")


def decode_member_name(raw: bytes) -> str:
    """A name stored without saying how: UTF-8, else CP949 (Korean Windows), else the zip format's CP437."""
    for encoding in ("utf-8", "cp949"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            pass
    return raw.decode("cp437")


class MemberNames:
    """The names of one archive so far: safe, NFC, and no two that some disk takes for one."""

    def __init__(self, archive: str) -> None:
        self.archive = archive
        self.renamed: dict[str, str] = {}  # our name -> the archive's, where they differ
        self._spelt: dict[str, str] = {}  # name without case -> as it was spelt
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._seen = 0

    def place(self, original: str, folder: bool = False) -> str:
        """Our path for a member, relative, in NFC, with `/`; "" for the archive's own root.

        Raises:
            DataError: the name leaves the folder, no disk can store it, or it collides with an earlier one.
        """
        self._seen += 1
        if self._seen > MAX_MEMBERS:
            raise DataError(
                f"{self.archive}: more than {MAX_MEMBERS:,} members", "unpack it by hand if you trust it"
            )
        name = to_nfc(original.replace("\\", "/"))
        if name.startswith("/") or _DRIVE_LETTER.match(name):
            raise self.refused(original, "an absolute name")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.refused(original, "a name that leaves the folder")
        if _CONTROL_CHARS.search(name):
            raise self.refused(original, "control characters in its name")
        if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
            raise self.refused(
                original, f"a name of more than {MAX_NAME_BYTES} bytes, longer than disks store"
            )
        if not parts and not folder:
            raise self.refused(original, "no name")
        path = "/".join(parts)
        self._claim(original, parts, folder)
        if path != original.removeprefix("./").rstrip("/"):
            self.renamed[path] = original
        return path

    def refused(self, member: str, what: str) -> DataError:
        """The error for a member that is not let in."""
        return DataError(
            f"{self.archive}: member {member!r} has {what}; nothing of it was unpacked",
            "fetch it again from its publisher, or unpack it by hand if you trust it",
        )

    def _claim(self, original: str, parts: list[str], folder: bool) -> None:
        """Every folder on the way and the name itself must be spelt as before; a file comes once."""
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            is_file = depth == len(parts) and not folder
            earlier = self._spelt.setdefault(to_nfc(path.casefold()), path)
            if earlier != path:
                raise self.refused(original, f"a name that differs from {earlier!r} only in case")
            if path in self._files:
                raise self.refused(original, f"the same name as an earlier file, {path!r}")
            if is_file:
                if path in self._folders:
                    raise self.refused(original, f"the same name as a folder, {path!r}")
                self._files.add(path)
            else:
                self._folders.add(path)


def check_unpacked_size(archive: str, size: int, packed: int) -> None:
    """Refuse contents that are far larger than what they were packed into.

    Raises:
        DataError: more than `MOST_BYTES`, or more than `MOST_TIMES` its packed size.
    """
    if size > MAX_UNPACKED_BYTES or (size > RATIO_FREE_BYTES and size > MAX_COMPRESSION_RATIO * packed):
        raise DataError(
            f"{archive} unpacks to {format_bytes(size)} from {format_bytes(packed)}: refused as a zip bomb",
            "unpack it by hand if you trust it",
        )


def check_disk_space(folder: Path, size: int) -> None:
    """See that a folder's disk has room for `size` more bytes.

    Raises:
        MachineError: it has not; says how much is missing.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise MachineError(
            f"{folder} needs {format_bytes(size)}, its disk has {format_bytes(free)}: {format_bytes(size - free)} are missing",
            "free some space, or choose a folder on another disk",
        )
