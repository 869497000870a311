"""A MediaWiki dump -> plain Korean lines, in slices that are read side by side.

Pages are cut out of the bytes without an XML parser, which is safe here because MediaWiki escapes
every `<` of a page: a mark such as `</page>` cannot stand in a text, and what could change the meaning
of the marks (a DTD with entities, CDATA, XML comments) MediaWiki never writes, and it is refused.
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
from kovqa_core.files import open_file
from kovqa_core.messages import message
from kovqa_core.messages.system_reasons import system_reason
from kovqa_core.tokenizer.wikitext import plain_lines

WIKIPEDIA_LICENCE = "CC BY-SA 4.0, GFDL"

_BZ2_MAGIC = b"BZh"
_DUMP_BLOCK_BYTES = 1 << 20
_MAX_PAGE_BYTES = 1 << 26  # bytes of a page; MediaWiki's own limit is 2 MiB
_STREAM_TRIES = 3  # streams of a bz2 looked at for one cut; in a multistream dump the first one fits
_REFETCH_DUMP_HINT = message("tokenizer.damaged-dump.hint", "fetch it again, or compare its checksum")

# A byte-order mark, an XML declaration, then the root element or a DTD that names it (refused later, with a reason).
_EXPORT_HEAD = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>\s*)?<(?:mediawiki|!DOCTYPE\s+mediawiki)\b")
_BZ2_STREAM_START = re.compile(rb"BZh[1-9]1AY&SY")  # a bz2 stream and its first block begin
_BZ2_STREAM_END = 0x177245385090  # 48 bits, then 32 bits of checksum, filled up to a byte
# Title, namespace, id and the mark of a redirect, in the fixed order of exports 0.6 and later.
_PAGE_HEAD = re.compile(
    rb"<page>\s*<title>[^<]*</title>\s*<ns>(-?\d+)</ns>\s*<id>(\d+)</id>\s*(<redirect\b)?"
)
# JSON, CSS, Lua: pages of the article namespace are wikitext almost always, but need not be.
_OTHER_MODEL = re.compile(rb"<model>(?!wikitext<)")
# With attributes (bytes, sha1, xml:space); `/>` is an empty text.
_TEXT_ELEMENT = re.compile(rb"<text\b[^>]*?(/)?>")
_REDIRECT_MARK = re.compile(r"\s*#\s*(?:redirect|넘겨주기)", re.IGNORECASE)
_XML_ESCAPE = re.compile(r"&(?:#x([0-9a-fA-F]+)|#([0-9]+)|(lt|gt|amp|quot|apos));")
_NAMED_ESCAPES = {"lt": "<", "gt": ">", "quot": '"', "apos": "'", "amp": "&"}
_FILE_NAME_DATE = re.compile(r"(20\d\d)-?([01]\d)-?([0-3]\d)(?!\d)")


@dataclass(frozen=True)
class DumpSlice:
    """Bytes of a dump that hold whole pages; for a bz2 they are whole streams.

    Attributes:
        path: the dump.
        start, end: bytes of the file as it lies on disk.
    """

    path: Path
    start: int
    end: int


def is_mediawiki_dump(path: Path) -> bool:
    """Whether a file is a MediaWiki export, plain or in bz2; its name does not matter.

    Raises:
        DataError: it cannot be read, or is a damaged bz2.
    """
    return bool(_EXPORT_HEAD.match(_read_dump_head(path)))


def dump_metadata(path: Path) -> dict[str, Any]:
    """What a dump says of itself: `name`, `base`, `generator`, `export`, `date`, `licence`.

    What it does not say is None; the date (2023-11-01) is the one in the file's name.

    Raises:
        DataError: not a MediaWiki export.
    """
    head = _checked_head(path).decode("utf-8", "replace")

    def head_value(pattern: str) -> str | None:
        match = re.search(pattern, head)
        return _unescape_xml(match[1]) if match else None

    date = _FILE_NAME_DATE.search(path.name)
    return {
        "name": head_value(r"<sitename>([^<]*)"),
        "base": head_value(r"<base>([^<]*)"),
        "generator": head_value(r"<generator>([^<]*)"),
        "export": head_value(r'<mediawiki\b[^>]*\sversion="([^"]*)'),
        "date": "-".join(date.groups()) if date else None,
        "licence": WIKIPEDIA_LICENCE,
    }


def dump_slices(path: Path, max_slices: int) -> list[DumpSlice]:
    """A dump in at most `max_slices` slices of about equal size.

    Plain XML is cut between pages, a multistream bz2 between streams; the index file beside it is not
    needed, because the next stream is found faster in the dump itself. Any other bz2 is one slice.

    Raises:
        DataError: not a MediaWiki export, or one that ends too early.
    """
    _checked_head(path)
    cuts: list[int] = []
    with (
        _dump_read_errors(path),
        open_file(path) as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        size, compressed = len(data), data[: len(_BZ2_MAGIC)] == _BZ2_MAGIC
        # Seen before the work, not after hours: a download that was cut has neither mark at its end.
        if not (_ends_stream(data[-11:]) if compressed else data[-64:].rstrip().endswith(b"</mediawiki>")):
            raise _truncated_error(path)
        for number in range(1, max_slices):
            # Never before the cut that was made last: a stream longer than a slice would be cut twice.
            after = max(size * number // max_slices, cuts[-1] + 1 if cuts else 1)
            cut = _next_stream(data, after) if compressed else data.find(b"<page>", after)
            if cut < 0:
                break
            cuts.append(cut)
    return [DumpSlice(path, start, end) for start, end in zip([0, *cuts], [*cuts, size], strict=True)]


def article_lines(dump_slice: DumpSlice) -> Iterator[str]:
    """The running text of the articles in a slice, in their order, as `wikitext.plain_lines` gives it.

    Other namespaces and redirects are left out. Memory does not grow with the slice.

    Raises:
        DataError: the file is damaged, ends too early, or is not a MediaWiki export.
    """
    for page in _iter_pages(dump_slice):
        text = _article_markup(page, dump_slice.path)
        if text:
            yield from plain_lines(text)


# ------------------------------------------------------------------------------------- bytes


@contextlib.contextmanager
def _dump_read_errors(path: Path) -> Iterator[None]:
    """Turn what a disk or bz2 refuses into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # bz2's own
            raise DataError(
                message("tokenizer.damaged-bz2", "{path}: damaged bz2 data", path=path), _REFETCH_DUMP_HINT
            ) from None
        raise DataError(
            message(
                "tokenizer.cannot-read",
                "cannot read {path}: {reason}",
                path=path,
                reason=system_reason(error),
            ),
            message("tokenizer.cannot-read.hint", "check the path"),
        ) from None


def _xml_blocks(dump_slice: DumpSlice) -> Iterator[bytes]:
    """The XML of a slice, at most a MiB at a time."""
    with _dump_read_errors(dump_slice.path), open_file(dump_slice.path) as stream:
        compressed = stream.read(len(_BZ2_MAGIC)) == _BZ2_MAGIC
        stream.seek(dump_slice.start)
        raw = _raw_blocks(stream, dump_slice)
        yield from _decompress_blocks(raw, dump_slice.path) if compressed else raw


def _raw_blocks(stream: IO[bytes], dump_slice: DumpSlice) -> Iterator[bytes]:
    remaining = dump_slice.end - dump_slice.start
    while remaining:
        block = stream.read(min(_DUMP_BLOCK_BYTES, remaining))
        if not block:
            raise _truncated_error(dump_slice.path)
        remaining -= len(block)
        yield block


def _decompress_blocks(raw: Iterator[bytes], path: Path) -> Iterator[bytes]:
    """The bytes of one or many bz2 streams, each of which must be whole."""
    decoder: bz2.BZ2Decompressor | None = None
    for block in raw:
        # Two reasons to go on: input that is left, or output that the decoder still holds back (`max_length`).
        while block or (decoder and not decoder.needs_input):
            decoder = decoder or bz2.BZ2Decompressor()
            yield decoder.decompress(block, _DUMP_BLOCK_BYTES)
            # What follows the end of a stream is the next stream, or empty.
            block = decoder.unused_data
            if decoder.eof:
                decoder = None
    if decoder:
        raise _truncated_error(path)


def _read_dump_head(path: Path) -> bytes:
    """The beginning, up to the first page where that is near."""
    head = b""
    with _dump_read_errors(path):
        whole = DumpSlice(path, 0, path.stat().st_size)
    for block in _xml_blocks(whole):
        head += block
        if b"<page>" in head or len(head) >= _DUMP_BLOCK_BYTES:
            break
    return head


def _checked_head(path: Path) -> bytes:
    head = _read_dump_head(path)
    if not _EXPORT_HEAD.match(head):
        raise DataError(
            message("tokenizer.not-a-dump", "{path} is not a MediaWiki export", path=path),
            message("tokenizer.not-a-dump.hint", "give a …-pages-articles.xml or .xml.bz2"),
        )
    head = head.partition(b"<page>")[0]
    _refuse_declarations(head, path)
    return head


def _refuse_declarations(xml: bytes, path: Path) -> None:
    if b"<!" in xml:
        raise DataError(
            message(
                "tokenizer.foreign-xml",
                "{path} holds a DTD, CDATA or an XML comment, which MediaWiki never writes",
                path=path,
            ),
            message("tokenizer.foreign-xml.hint", "fetch the dump from its source"),
        )


def _ends_stream(tail: bytes) -> bool:
    """Whether the last 11 bytes of a bz2 hold its end mark, which begins at any bit."""
    bits = int.from_bytes(tail, "big")
    return any(bits >> (32 + padding) & (1 << 48) - 1 == _BZ2_STREAM_END for padding in range(8))


def _next_stream(data: mmap.mmap, after: int) -> int:
    """Where the next stream of a bz2 begins that begins with a page; -1 if there is none nearby."""
    for match in itertools.islice(_BZ2_STREAM_START.finditer(data, after), _STREAM_TRIES):
        block = data[match.start() : match.start() + _DUMP_BLOCK_BYTES]  # holds the stream's first block
        # The ten bytes may occur by chance inside compressed data: only one that decompresses is a stream.
        with contextlib.suppress(OSError):
            if bz2.BZ2Decompressor().decompress(block, 256).lstrip().startswith(b"<page>"):
                return match.start()
    return -1


def _truncated_error(path: Path) -> DataError:
    return DataError(
        message("tokenizer.truncated-dump", "{path} ends too early", path=path), _REFETCH_DUMP_HINT
    )


# ------------------------------------------------------------------------------------- pages


def _iter_pages(dump_slice: DumpSlice) -> Iterator[bytes]:
    """The bytes of each page element, up to its end mark; before the first, what stands before it."""
    rest = b""
    for block in _xml_blocks(dump_slice):
        *pages, rest = (rest + block).split(b"</page>")
        for page in pages:
            _refuse_declarations(page, dump_slice.path)
            yield page
        if len(rest) > _MAX_PAGE_BYTES:
            raise DataError(
                message(
                    "tokenizer.page-too-large",
                    "{path}: a page above {megabytes} MiB",
                    path=dump_slice.path,
                    megabytes=_MAX_PAGE_BYTES >> 20,
                ),
                _REFETCH_DUMP_HINT,
            )
    # Only the last slice ends with the root element; any other must end between two pages.
    is_last = dump_slice.end == dump_slice.path.stat().st_size
    if b"<page>" in rest or (is_last and b"</mediawiki>" not in rest):
        raise _truncated_error(dump_slice.path)


def _article_markup(page: bytes, path: Path) -> str:
    """The markup of a page's newest revision; nothing for what is not an article."""
    head = _PAGE_HEAD.search(page)
    if not head:
        title = re.search(rb"<title>([^<]*)", page)
        name = title[1].decode("utf-8", "replace") if title else "?"
        raise DataError(
            message(
                "tokenizer.old-export",
                "{path}: page '{page}' has no title, <ns> and <id>",
                path=path,
                page=name,
            ),
            message("tokenizer.old-export.hint", "give an export 0.6 or later"),
        )
    # An export with history lists the newest revision last.
    newest = page.rfind(b"<revision>")
    if head[1] != b"0" or head[3]:
        return ""
    begin = _TEXT_ELEMENT.search(page, newest)
    if begin and (begin[1] or _OTHER_MODEL.search(page, newest, begin.start())):
        return ""
    end = page.find(b"</text>", begin.end()) if begin else -1
    id = head[2].decode()
    if not begin or end < 0:
        raise DataError(
            message("tokenizer.page-without-text", "{path}: page {id} has no whole <text>", path=path, id=id),
            _REFETCH_DUMP_HINT,
        )
    try:
        text = _unescape_xml(page[begin.end() : end].decode())
    except UnicodeDecodeError:
        raise DataError(
            message("tokenizer.page-not-utf8", "{path}: page {id} is not UTF-8", path=path, id=id),
            _REFETCH_DUMP_HINT,
        ) from None
    return "" if _REDIRECT_MARK.match(text) else text


def _unescape_xml(text: str) -> str:
    """XML's escapes decoded, once."""
    if "&#" in text:  # seldom; numbers and names must not make new escapes of each other
        return _XML_ESCAPE.sub(_escaped_character, text)
    for name, character in _NAMED_ESCAPES.items():  # amp stands last, for the same reason
        text = text.replace(f"&{name};", character)
    return text


def _escaped_character(escape: re.Match[str]) -> str:
    if escape[3]:
        return _NAMED_ESCAPES[escape[3]]
    code = int(escape[1], 16) if escape[1] else int(escape[2])
    # Numbers that are no character (halves of a pair, beyond Unicode) become the mark of a broken one.
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else "\N{REPLACEMENT CHARACTER}"
