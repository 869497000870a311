"""What a file is that was named as a table without being one: by its first bytes, whatever its name says.

`data/file_kind.py` knows the formats that any file may have; here is what lies in the containers of Office, and
what only data files are.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from kovqa_core.data.file_kind import GZIP_MAGIC, OLE_MAGIC, PARQUET_MAGIC, ZIP_HEADS, FileKind, data_kind
from kovqa_core.data.tables.text_lines import TABLE_FORMATS_HINT
from kovqa_core.files import open_file
from kovqa_core.messages import message

_HEAD_BYTES = 1 << 12
_OLE_BYTES = 1 << 24  # an OLE file's list of streams may lie anywhere in it
_EXCEL_WORKBOOK = "xl/workbook.xml"  # the member of a zip archive that makes it an Excel file
_SAVE_AS_CSV = message("data.save-as-csv.hint", "open it and save it as CSV in UTF-8")
_UNPACK = message("data.unpack.hint", "unpack it, and name a table that was in it")
_HANGUL = FileKind(message("data.kind.hwp", "a Hangul (HWP) document"), _SAVE_AS_CSV)
_WORD = FileKind(message("data.kind.word", "a Word document"), _SAVE_AS_CSV)
_SLIDES = FileKind(message("data.kind.slides", "a PowerPoint file"), _SAVE_AS_CSV)


def find_other_kind(path: Path) -> FileKind | None:
    """What another file than a table is; None for text, .xlsx, parquet, gzip, and what cannot be read twice."""
    head = read_head(path)
    if head.startswith(ZIP_HEADS):
        return _zip_kind(path)
    if head.startswith(OLE_MAGIC):
        return _ole_kind(path)
    if not head or head.startswith((PARQUET_MAGIC, GZIP_MAGIC)):
        return None
    own = next((kind for start, kind in _starts() if head.startswith(start)), None)
    if own or head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(
        (b"{", b"[")
    ):  # JSON is a table, or says why not
        return own
    kind = data_kind(head)
    return FileKind(kind.name, kind.remedy or TABLE_FORMATS_HINT) if kind else None


def read_head(path: Path, size: int = _HEAD_BYTES) -> bytes:
    """The first bytes of a file; none where it cannot be read twice (a pipe), or at all."""
    try:
        if not path.is_file():
            return b""
        with open_file(path) as stream:
            return stream.read(size)
    except OSError:
        return b""


def _starts() -> Iterator[tuple[bytes, FileKind]]:
    """What files begin with that only a table is taken for."""
    yield b"HWP Document File", _HANGUL
    yield b"{\\rtf", FileKind(message("data.kind.rtf", "an RTF document"), _SAVE_AS_CSV)
    yield b"<table", FileKind(message("data.kind.html-table", "an HTML table"), _SAVE_AS_CSV)
    pickle = FileKind(
        message("data.kind.pickle", "a Python pickle, which is never loaded"), TABLE_FORMATS_HINT
    )
    yield from ((bytes((0x80, protocol)), pickle) for protocol in range(2, 6))
    arrow = FileKind(message("data.kind.arrow", "an Arrow file"), TABLE_FORMATS_HINT)
    yield from ((start, arrow) for start in (b"ARROW1\0\0", b"\xff\xff\xff\xff"))
    yield b"Obj\x01", FileKind(message("data.kind.avro", "an Avro file"), TABLE_FORMATS_HINT)
    egg = FileKind(message("data.kind.egg", "an ALZip archive"), _UNPACK)
    yield from ((start, egg) for start in (b"EGGA\0", b"ALZ\x01"))
    yield b"BZh9", FileKind(message("data.kind.bzip2", "packed with bzip2"), _UNPACK)
    yield b"\xfd7zXZ\0", FileKind(message("data.kind.xz", "packed with xz"), _UNPACK)
    yield b"\x28\xb5\x2f\xfd", FileKind(message("data.kind.zstd", "packed with zstd"), _UNPACK)


def _ole_kind(path: Path) -> FileKind:
    """What an OLE file is, by the names of the streams in it."""
    data = read_head(path, _OLE_BYTES)
    xls = FileKind(message("data.kind.xls", "an Excel file of the old kind (.xls)"), _SAVE_AS_CSV)
    locked = FileKind(message("data.kind.encrypted", "an Office file with a password"), _SAVE_AS_CSV)
    streams = {
        "EncryptedPackage": locked, "HwpSummaryInformation": _HANGUL, "WordDocument": _WORD,
        "PowerPoint Document": _SLIDES, "Workbook": xls, "Book": xls,
    }  # fmt: skip
    unknown = FileKind(message("data.kind.ole", "an old Office file (.xls, .doc, .hwp)"), _SAVE_AS_CSV)
    return next((kind for name, kind in streams.items() if name.encode("utf-16-le") in data), unknown)


def _zip_kind(path: Path) -> FileKind | None:
    """What a zip archive is, by its members; None for .xlsx."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        again = message("data.damaged-zip.hint", "fetch it again, or save it as CSV in UTF-8")
        if path.suffix.lower() in (".xlsx", ".xlsm"):
            return FileKind(message("data.kind.damaged-xlsx", "a damaged Excel file"), again)
        return FileKind(message("data.kind.damaged-zip", "a damaged zip archive"), again)
    if _EXCEL_WORKBOOK in members:
        return None
    xlsb = FileKind(message("data.kind.xlsb", "a binary Excel file (.xlsb)"), _SAVE_AS_CSV)
    ods = FileKind(message("data.kind.ods", "an OpenDocument file"), _SAVE_AS_CSV)
    numbers = FileKind(message("data.kind.numbers", "an Apple Numbers file"), _SAVE_AS_CSV)
    kinds = {
        "xl/workbook.bin": xlsb, "word/document.xml": _WORD, "ppt/presentation.xml": _SLIDES,
        "Contents/content.hpf": _HANGUL, "content.xml": ods, "Index/Document.iwa": numbers,
    }  # fmt: skip
    other = FileKind(message("data.kind.zip-archive", "a zip archive"), _UNPACK)
    return next((kind for member, kind in kinds.items() if member in members), other)
