"""What a member of an archive may be called and how much it may hold: one rule for zip, tar and AI-Hub's stream.

Source: docs/sources/datasets.md, D4.
"""

from __future__ import annotations

import re
import shutil
import struct
import zlib
from pathlib import Path

from kovqa_core.data.archive_members import MAX_COMPRESSION_RATIO, RATIO_FREE_BYTES
from kovqa_core.download.checks import format_bytes
from kovqa_core.errors import DataError, MachineError
from kovqa_core.files import to_nfc
from kovqa_core.messages import Message, message
from kovqa_core.system_support import is_storable_name

MAX_MEMBERS = 2_000_000  # the largest known set has 1.35 million images, and spreads them over many archives
MAX_UNPACKED_BYTES = 4 << 40  # whole AI-Hub sets are below 4 TiB: a size above it is a lie or an attack
MAX_NAME_BYTES = 255  # bytes in one part of a path: what common disks store

_UNICODE_PATH_TAG = 0x7075
_DRIVE_LETTER = re.compile(r"[A-Za-z]:")
_CONTROL_CHARS = re.compile(r"[\x00-\x1f\x7f]")


def unicode_path_field(extra: bytes, raw: bytes) -> str | None:
    """The name in a zip member's Info-ZIP Unicode Path field (APPNOTE 4.6.9), as Bandizip writes it beside a CP949 name.

    Args:
        extra: the member's extra fields.
        raw: its name as stored, which the field holds a checksum of: a tool that renamed the member and knew
            nothing of the field has left it behind with the old name.

    Returns:
        The name; None without the field, or where it is not this name's or is damaged.
    """
    while len(extra) >= 4:
        tag, size = struct.unpack_from("<HH", extra)
        data, extra = extra[4 : 4 + size], extra[4 + size :]
        # Version 1, the CRC-32 of the stored name, and then the name in UTF-8.
        if tag == _UNICODE_PATH_TAG and len(data) > 5 and data[0] == 1:
            if int.from_bytes(data[1:5], "little") != zlib.crc32(raw):
                return None
            try:
                return data[5:].decode("utf-8")
            except UnicodeDecodeError:
                return None
    return None


class MemberNames:
    """The names of one archive so far: safe, NFC, and no two that some disk takes for one.

    Attributes:
        archive: what to call it in errors.
        renamed: our name -> the archive's, where they differ.
    """

    def __init__(self, archive: str) -> None:
        self.archive = archive
        self.renamed: dict[str, str] = {}
        self._spelling: dict[str, str] = {}  # name without case -> as it was spelt first
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._count = 0

    def claim_path(self, original: str, *, folder: bool = False) -> str:
        """Our path for a member, relative, in NFC, with `/`; "" for the archive's own root.

        Raises:
            DataError: the name leaves the folder, no disk can store it, or it collides with an earlier one.
        """
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise DataError(
                message(
                    "download.too-many-members",
                    "{archive}: more than {limit:,} members",
                    archive=self.archive,
                    limit=MAX_MEMBERS,
                ),
                message("download.trust-archive.hint", "unpack it by hand if you trust it"),
            )
        # A `\` is a separator for Windows: left in, `..\` would leave the folder there.
        name = to_nfc(original.replace("\\", "/"))
        # `C:name` is absolute on Windows, even without a slash.
        if name.startswith("/") or _DRIVE_LETTER.match(name):
            raise self.refused(original, message("download.name-absolute", "an absolute name"))
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.refused(original, message("download.name-escapes", "a name that leaves the folder"))
        # They would steer a terminal that lists the folder, and a line end breaks every list of names.
        if _CONTROL_CHARS.search(name):
            raise self.refused(original, message("download.name-control", "control characters in its name"))
        if not all(map(is_storable_name, parts)):
            raise self.refused(
                original, message("download.name-windows", "a name that Windows does not store")
            )
        # Bytes, not letters: a Hangul syllable takes three.
        if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
            reason = message(
                "download.name-too-long",
                "a name of more than {limit} bytes, longer than disks store",
                limit=MAX_NAME_BYTES,
            )
            raise self.refused(original, reason)
        if not parts and not folder:
            raise self.refused(original, message("download.name-empty", "no name"))
        path = "/".join(parts)
        self._claim_levels(original, parts, folder=folder)
        # `./` and a final `/` are spellings of the same name, not worth a note.
        if path != original.removeprefix("./").rstrip("/"):
            self.renamed[path] = original
        return path

    def refused(self, member: str, reason: Message) -> DataError:
        """The error for a member that is not let in: it has this (an absolute name, …)."""
        return DataError(
            message(
                "download.member-refused",
                "{archive}: member {member!r} has {reason}; nothing of it was unpacked",
                archive=self.archive,
                member=member,
                reason=reason,
            ),
            message(
                "download.member-refused.hint",
                "fetch it again from its publisher, or unpack it by hand if you trust it",
            ),
        )

    def refused_type(self, member: str, member_type: Message) -> DataError:
        """The error for a member that is neither file nor folder."""
        reason = message(
            "download.member-type",
            "a type that is not unpacked: it is {member_type}",
            member_type=member_type,
        )
        return self.refused(member, reason)

    def _claim_levels(self, original: str, parts: list[str], *, folder: bool) -> None:
        """Every folder on the way and the name itself must be spelt as before; a file comes once."""
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            is_file = depth == len(parts) and not folder
            # macOS and Windows store `A.jpg` and `a.jpg` as one file: the second would replace the first.
            earlier = self._spelling.setdefault(to_nfc(path.casefold()), path)
            if earlier != path:
                reason = message(
                    "download.name-case", "a name that differs from {earlier!r} only in case", earlier=earlier
                )
                raise self.refused(original, reason)
            if path in self._files:
                reason = message(
                    "download.name-of-file", "the same name as an earlier file, {path!r}", path=path
                )
                raise self.refused(original, reason)
            if is_file:
                if path in self._folders:
                    reason = message(
                        "download.name-of-folder", "the same name as a folder, {path!r}", path=path
                    )
                    raise self.refused(original, reason)
                self._files.add(path)
            else:
                self._folders.add(path)


def check_unpacked_size(archive: str, size: int, packed: int) -> None:
    """Refuse contents that are far larger than what they were packed into.

    Raises:
        DataError: more than `MAX_UNPACKED_BYTES`, or more than `MAX_COMPRESSION_RATIO` times its packed size.
    """
    if size > MAX_UNPACKED_BYTES or (size > RATIO_FREE_BYTES and size > MAX_COMPRESSION_RATIO * packed):
        raise DataError(
            message(
                "download.zip-bomb",
                "{archive} unpacks to {size} from {packed}: refused as a zip bomb",
                archive=archive,
                size=format_bytes(size),
                packed=format_bytes(packed),
            ),
            message("download.trust-archive.hint", "unpack it by hand if you trust it"),
        )


def check_disk_space(folder: Path, size: int) -> None:
    """See that a folder's disk has room for `size` more bytes.

    Raises:
        MachineError: it has not; says how much is missing.
    """
    # The folder itself may not exist yet: the disk is that of its nearest parent that does.
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise MachineError(
            message(
                "download.no-room",
                "{folder} needs {size}, its disk has {free}: {missing} are missing",
                folder=folder,
                size=format_bytes(size),
                free=format_bytes(free),
                missing=format_bytes(size - free),
            ),
            message("download.no-room.hint", "free some space, or choose a folder on another disk"),
        )
