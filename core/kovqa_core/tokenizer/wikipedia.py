"""A MediaWiki dump -> plain Korean lines, in parts that can be read beside each other.

Pages are cut out of the bytes without an XML parser, which is safe here because MediaWiki escapes
every `<` of a page: a mark such as `</page>` cannot stand in a text, and what could change the meaning
of the marks (a DTD with entities, CDATA, XML comments) MediaWiki never writes and is refused.
"""

from __future__ import annotations

import bz2
import contextlib
import itertools
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kovqa_core.errors import DataError
from kovqa_core.tokenizer.wikitext import plain_lines

LICENCE = "CC BY-SA 4.0, GFDL"

_PACKED = b"BZh"
_BLOCK = 1 << 20  # bytes
_LARGEST = 1 << 26  # bytes of a page; MediaWiki's own limit is 2 MiB
_TRIES = 3  # streams of a bz2 looked at for one cut; in a multistream dump the first one fits
_AGAIN = "fetch it again, or compare its checksum"

_BEGINNING = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>\s*)?<(?:mediawiki|!DOCTYPE\s+mediawiki)\b")
_STREAM = re.compile(rb"BZh[1-9]1AY&SY")  # a bz2 stream and its first block begin
_STREAM_END = 0x177245385090  # 48 bits, then 32 bits of checksum, filled up to a byte
_PAGE = re.compile(rb"<page>\s*<title>[^<]*</title>\s*<ns>(-?\d+)</ns>\s*<id>(\d+)</id>\s*(<redirect\b)?")
_OTHER_MODEL = re.compile(rb"<model>(?!wikitext<)")
_TEXT = re.compile(rb"<text\b[^>]*?(/)?>")
_REDIRECT = re.compile(r"\s*#\s*(?:redirect|넘겨주기)", re.IGNORECASE)
_ESCAPE = re.compile(r"&(?:#x([0-9a-fA-F]+)|#([0-9]+)|(lt|gt|amp|quot|apos));")
_NAMED = {"lt": "<", "gt": ">", "quot": '"', "apos": "'", "amp": "&"}
_DATE = re.compile(r"(20\d\d)-?([01]\d)-?([0-3]\d)(?!\d)")


@dataclass(frozen=True)
class Part:
    """Bytes of a dump that hold whole pages; for a bz2 they are whole streams.

    Attributes:
        path: the dump.
        start, end: bytes of the file as it lies on disk.
    """

    path: Path
    start: int
    end: int


def is_dump(path: Path) -> bool:
    """Whether a file is a MediaWiki export, plain or in bz2; its name does not matter.

    Raises:
        DataError: it cannot be read, or is a damaged bz2.
    """
    return bool(_BEGINNING.match(_head(path)))


def about(path: Path) -> dict[str, Any]:
    """What a dump says of itself: `name`, `base`, `generator`, `export`, `date`, `licence`.

    What it does not say is None; the date (2023-11-01) is the one in the file's name.

    Raises:
        DataError: no MediaWiki export.
    """
    head = _checked_head(path).decode("utf-8", "replace")

    def said(pattern: str) -> str | None:
        found = re.search(pattern, head)
        return _unescaped(found[1]) if found else None

    date = _DATE.search(path.name)
    return {
        "name": said(r"<sitename>([^<]*)"),
        "base": said(r"<base>([^<]*)"),
        "generator": said(r"<generator>([^<]*)"),
        "export": said(r'<mediawiki\b[^>]*\sversion="([^"]*)'),
        "date": "-".join(date.groups()) if date else None,
        "licence": LICENCE,
    }


def parts(path: Path, wanted: int) -> list[Part]:
    """A dump in at most `wanted` parts of about equal size.

    Plain XML is cut between pages, a multistream bz2 between streams; the index file beside it is not
    needed, because the next stream is found faster in the dump itself. Any other bz2 is one part.

    Raises:
        DataError: no MediaWiki export, or one that ends too early.
    """
    _checked_head(path)
    cuts: list[int] = []
    with (
        _readable(path),
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        size, packed = len(data), data[: len(_PACKED)] == _PACKED
        if not (_ends_stream(data[-11:]) if packed else data[-64:].rstrip().endswith(b"</mediawiki>")):
            raise _too_early(path)
        for number in range(1, wanted):
            after = max(size * number // wanted, cuts[-1] + 1 if cuts else 1)
            cut = _next_stream(data, after) if packed else data.find(b"<page>", after)
            if cut < 0:
                break
            cuts.append(cut)
    return [Part(path, start, end) for start, end in zip([0, *cuts], [*cuts, size], strict=True)]


def lines(part: Part) -> Iterator[str]:
    """The running text of the articles in a part, in their order, as `wikitext.plain_lines` gives it.

    Other namespaces and redirects are left out. Memory does not grow with the part.

    Raises:
        DataError: the file is damaged, ends too early, or is no MediaWiki export.
    """
    for page in _pages(part):
        text = _article(page, part.path)
        if text:
            yield from plain_lines(text)


# ------------------------------------------------------------------------------------- bytes


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what a disk or bz2 refuses into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # bz2's own
            raise DataError(f"{path}: damaged bz2 data", _AGAIN) from None
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from None


def _blocks(part: Part) -> Iterator[bytes]:
    """The XML of a part, at most a MiB at a time."""
    with _readable(part.path), part.path.open("rb") as stream:
        packed = stream.read(len(_PACKED)) == _PACKED
        stream.seek(part.start)
        raw = _raw(stream, part)
        yield from _unpacked(raw, part.path) if packed else raw


def _raw(stream: IO[bytes], part: Part) -> Iterator[bytes]:
    left = part.end - part.start
    while left:
        block = stream.read(min(_BLOCK, left))
        if not block:
            raise _too_early(part.path)
        left -= len(block)
        yield block


def _unpacked(raw: Iterator[bytes], path: Path) -> Iterator[bytes]:
    """The bytes of one or many bz2 streams, each of which must be whole."""
    decoder: bz2.BZ2Decompressor | None = None
    for block in raw:
        while block or (decoder and not decoder.needs_input):
            decoder = decoder or bz2.BZ2Decompressor()
            yield decoder.decompress(block, _BLOCK)
            block = decoder.unused_data
            if decoder.eof:
                decoder = None
    if decoder:
        raise _too_early(path)


def _head(path: Path) -> bytes:
    """The beginning, up to the first page where that is near."""
    head = b""
    with _readable(path):
        whole = Part(path, 0, path.stat().st_size)
    for block in _blocks(whole):
        head += block
        if b"<page>" in head or len(head) >= _BLOCK:
            break
    return head


def _checked_head(path: Path) -> bytes:
    head = _head(path)
    if not _BEGINNING.match(head):
        raise DataError(f"{path} is no MediaWiki export", "give a …-pages-articles.xml or .xml.bz2")
    head = head.partition(b"<page>")[0]
    _refuse_declarations(head, path)
    return head


def _refuse_declarations(xml: bytes, path: Path) -> None:
    if b"<!" in xml:
        raise DataError(
            f"{path} holds a DTD, CDATA or an XML comment, which MediaWiki never writes",
            "fetch the dump from its source",
        )


def _ends_stream(tail: bytes) -> bool:
    """Whether the last 11 bytes of a bz2 hold its end mark, which begins at any bit."""
    bits = int.from_bytes(tail, "big")
    return any(bits >> (32 + filled) & (1 << 48) - 1 == _STREAM_END for filled in range(8))


def _next_stream(data: mmap.mmap, after: int) -> int:
    """Where the next stream of a bz2 begins that begins with a page; -1 if there is none near."""
    for found in itertools.islice(_STREAM.finditer(data, after), _TRIES):
        block = data[found.start() : found.start() + _BLOCK]  # holds the stream's first block
        with contextlib.suppress(OSError):
            if bz2.BZ2Decompressor().decompress(block, 256).lstrip().startswith(b"<page>"):
                return found.start()
    return -1


def _too_early(path: Path) -> DataError:
    return DataError(f"{path} ends too early", _AGAIN)


# ------------------------------------------------------------------------------------- pages


def _pages(part: Part) -> Iterator[bytes]:
    """The bytes of each page element, up to its end mark; before the first, what stands before it."""
    rest = b""
    for block in _blocks(part):
        *pages, rest = (rest + block).split(b"</page>")
        for page in pages:
            _refuse_declarations(page, part.path)
            yield page
        if len(rest) > _LARGEST:
            raise DataError(f"{part.path}: a page above {_LARGEST >> 20} MiB", _AGAIN)
    is_last = part.end == part.path.stat().st_size
    if b"<page>" in rest or (is_last and b"</mediawiki>" not in rest):
        raise _too_early(part.path)


def _article(page: bytes, path: Path) -> str:
    """The markup of a page's newest revision; nothing for what is no article."""
    head = _PAGE.search(page)
    if not head:
        title = re.search(rb"<title>([^<]*)", page)
        name = title[1].decode("utf-8", "replace") if title else "?"
        raise DataError(f"{path}: page '{name}' has no title, <ns> and <id>", "give an export 0.6 or later")
    newest = page.rfind(b"<revision>")
    if head[1] != b"0" or head[3]:
        return ""
    begin = _TEXT.search(page, newest)
    if begin and (begin[1] or _OTHER_MODEL.search(page, newest, begin.start())):
        return ""
    end = page.find(b"</text>", begin.end()) if begin else -1
    if not begin or end < 0:
        raise DataError(f"{path}: page {head[2].decode()} has no whole <text>", _AGAIN)
    try:
        text = _unescaped(page[begin.end() : end].decode())
    except UnicodeDecodeError:
        raise DataError(f"{path}: page {head[2].decode()} is not UTF-8", _AGAIN) from None
    return "" if _REDIRECT.match(text) else text


def _unescaped(text: str) -> str:
    """XML's escapes decoded, once."""
    if "&#" in text:  # seldom; numbers and names must not make new escapes of each other
        return _ESCAPE.sub(_character, text)
    for name, character in _NAMED.items():  # amp stands last, for the same reason
        text = text.replace(f"&{name};", character)
    return text


def _character(escape: re.Match[str]) -> str:
    if escape[3]:
        return _NAMED[escape[3]]
    code = int(escape[1], 16) if escape[1] else int(escape[2])
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else "\N{REPLACEMENT CHARACTER}"
