"""Images that lie in a table itself (Hugging Face's parquet): under which names they become files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kovqa_core.files import disk_errors, to_nfc

SaveImage = Callable[[str, bytes], None]  # of a path below the image folder, and the file's bytes

_MAX_NAME_BYTES = 200  # of a path's part; file systems take 255
_SUFFIXES: tuple[tuple[bytes, tuple[str, ...]], ...] = (
    (b"\xff\xd8\xff", (".jpg", ".jpeg", ".jfif")),
    (b"\x89PNG\r\n\x1a\n", (".png",)),
    (b"GIF8", (".gif",)),
    (b"BM", (".bmp",)),
    (b"II*\0", (".tif", ".tiff")),
    (b"MM\0*", (".tif", ".tiff")),
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass
class ImageNames:
    """Names of a table's images: the same bytes under one path are one file, and no two files have one name.

    Attributes:
        taken: name in lower case, for disks that see no difference -> digest of the bytes.
    """

    taken: dict[str, bytes] = field(default_factory=dict)

    def choose(self, path: str | None, data: bytes) -> str:
        """The name of an image: its path if that is usable and free, else (also) a digest of its bytes.

        Not the row's number: rows about one image would have different images, and splits by image
        would put it into training and validation.
        """
        digest = hashlib.blake2b(data, digest_size=8)
        name = _usable_path(path, data) or f"{digest.hexdigest()}{image_suffix(data) or '.bin'}"
        if self.taken.setdefault(name.lower(), digest.digest()) != digest.digest():
            whole = PurePosixPath(name)
            name = str(whole.with_name(f"{whole.stem}-{digest.hexdigest()}{whole.suffix}"))
            self.taken[name.lower()] = digest.digest()
        return name


def image_suffix(data: bytes, suffix: str = "") -> str:
    """The suffix that bytes have as an image, "" if they are none of a known kind.

    Args:
        data: the file.
        suffix: which it has now; kept if it is one of that kind.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        known: tuple[str, ...] = (".webp",)
    elif data[4:8] == b"ftyp":
        known = (".heic", ".heif", ".avif")
    else:
        known = next((names for magic, names in _SUFFIXES if data.startswith(magic)), ("",))
    return suffix if suffix.lower() in known else known[0]


def _usable_path(path: str | None, data: bytes) -> str:
    """A path below the image folder, with the suffix of what it holds; "" where there is none."""
    if not path:
        return ""
    whole = PurePosixPath(to_nfc(path.replace("\\", "/")))
    # An absolute path is one of the machine that the table was made on: its name is all that is left of it.
    if whole.is_absolute() or re.match(r"[A-Za-z]:", str(whole)):
        whole = PurePosixPath(whole.name)
    is_usable = all(
        not part.startswith(".") and len(part.encode("utf-8", "replace")) <= _MAX_NAME_BYTES
        for part in whole.parts
    )
    if not whole.parts or not is_usable or _CONTROL.search(str(whole)):
        return ""
    suffix = image_suffix(data, whole.suffix)
    if not suffix or whole.suffix == suffix:
        return str(whole)
    stem = whole.stem if image_suffix_is_known(whole.suffix) else whole.name
    return str(whole.with_name(f"{stem}{suffix}"))


def image_suffix_is_known(suffix: str) -> bool:
    """Is it a suffix that images have? `a.1` has none."""
    return suffix.lower() in (
        ".webp",
        ".heic",
        ".heif",
        ".avif",
        *(s for _, names in _SUFFIXES for s in names),
    )


def image_writer(folder: Path) -> SaveImage:
    """What writes images below a folder, each once."""

    def write_image(name: str, data: bytes) -> None:
        file = folder / name
        if not file.exists():
            with disk_errors(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)

    return write_image
