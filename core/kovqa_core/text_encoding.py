"""In which encoding a text file is: one rule for tables, JSON, answer lists and corpora.

A file has one encoding, chosen once:

    UTF-16    it begins with the byte-order mark of UTF-16 (Excel's "Unicode text")
    CP949     its first bytes beyond ASCII are not UTF-8, all of it is strict CP949, and it is not mostly UTF-8
    UTF-8     everything else, with or without a byte-order mark

CP949 accepts much that nobody wrote in it: a letter cut in a UTF-8 file makes two Hangul letters of the bytes around
it. So a file that held a letter in UTF-8 before its first error, or holds mostly such letters behind it, is
damaged UTF-8: an error with line and byte, never another text.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Callable, Iterator

from kovqa_core.errors import DataError
from kovqa_core.messages import message

ByteBlocks = Callable[[], Iterator[bytes]]  # the bytes of a file from its beginning, each time it is called

# What Hangul is in UTF-8. In CP949 text some 5 % of the bytes look like it by chance.
_UTF8_LETTER = re.compile(rb"[\xe1-\xef][\x80-\xbf]{2}")
_THREE_BYTES = 0xE0  # the first byte of letters that are so long, Hangul among them, is at least this
_ASCII_BYTES = bytes(range(128))


def decode_blocks(blocks: ByteBlocks, name: str, line: int = 1) -> Iterator[str]:
    """The text of a file, block by block.

    Args:
        blocks: its bytes; called a second time where they may be CP949.
        name: what to call it in errors.
        line: number of its first line.

    Raises:
        DataError: in none of the encodings, or damaged; with line and byte.
    """
    stream = blocks()
    block = next(stream, b"")
    while 0 < len(block) < len(codecs.BOM_UTF8) and (more := next(stream, b"")):
        block += more
    if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield from _decode_utf16(block, stream, name, line)
        return
    decoder: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8")()
    offset, is_ascii, encoding, first_line = 0, True, "UTF-8", line
    if block.startswith(codecs.BOM_UTF8):
        block = block[len(codecs.BOM_UTF8) :] or next(stream, b"")
        offset, is_ascii = len(codecs.BOM_UTF8), False
    while True:
        pending = decoder.getstate()[0]
        try:
            text = decoder.decode(block, not block)
        except UnicodeDecodeError as error:
            data, before = pending + block, error.start
            place = (line + data.count(b"\n", 0, before), offset - len(pending) + before, data[before])
            is_first = is_ascii and encoding == "UTF-8" and _may_be_cp949(data[:before])
            if not is_first or _is_mostly_utf8(blocks):
                raise encoding_error(name, *place, encoding) from None
            if (lines := _lines_before_cp949_error(blocks)) is not None:
                # In a damaged CP949 file the first line is none that the user would look at.
                raise encoding_error(name, max(place[0], first_line + lines), *place[1:], "") from None
            decoder, encoding = codecs.getincrementaldecoder("cp949")(), "CP949"
            text = decoder.decode(data, not block)
        if is_ascii and not text.isascii():
            is_ascii = False
            if encoding == "UTF-8" and _may_be_cp949(pending + block) and detect_encoding(blocks) == "cp949":
                decoder, encoding = codecs.getincrementaldecoder("cp949")(), "CP949"
                text = decoder.decode(pending + block, not block)
        line, offset = line + block.count(b"\n"), offset + len(block)
        if text:
            yield text
        if not block:
            return
        block = next(stream, b"")


def _decode_utf16(block: bytes, stream: Iterator[bytes], name: str, line: int) -> Iterator[str]:
    order = "utf-16-le" if block.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"
    decoder, offset = codecs.getincrementaldecoder(order)(), len(codecs.BOM_UTF16_LE)
    block = block[offset:] or next(stream, b"")
    while True:
        pending = decoder.getstate()[0]
        try:
            text = decoder.decode(block, not block)
        except UnicodeDecodeError as error:
            data = pending + block
            line += data[: error.start].decode(order).count("\n")
            place = (line, offset - len(pending) + error.start, data[error.start])
            raise encoding_error(name, *place, "UTF-16") from None
        line, offset = line + text.count("\n"), offset + len(block)
        if text:
            yield text
        if not block:
            return
        block = next(stream, b"")


def decode_text(data: bytes, name: str, line: int = 1) -> str:
    """Text of bytes; see `decode_blocks`.

    Args:
        data: whole lines.
        name: what to call them in errors.
        line: number of the first.

    Raises:
        DataError: in none of the encodings, or damaged; with line and byte.
    """
    return "".join(decode_blocks(lambda: iter([data]), name, line))


def detect_encoding(blocks: ByteBlocks) -> str:
    """The codec that a file is to be decoded with: "utf-8-sig", "cp949" or "utf-16"; it may still be damaged."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    for number, block in enumerate(blocks()):
        if not number and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        pending = decoder.getstate()[0]
        if not pending and block.isascii():
            continue
        try:
            text = decoder.decode(block)
        except UnicodeDecodeError as error:
            is_first = _may_be_cp949((pending + block)[: error.start])
            is_cp949 = is_first and not _is_mostly_utf8(blocks) and _lines_before_cp949_error(blocks) is None
            return "cp949" if is_cp949 else "utf-8-sig"
        if max(text, default="") >= "\u0800":
            return "utf-8-sig"
    return "utf-8-sig"


def _may_be_cp949(data: bytes) -> bool:
    """Has text that is whole in UTF-8 no letter but short ones? One in ten of CP949 looks so: 책 is C3 A5, or å."""
    return max(data, default=0) < _THREE_BYTES


def _lines_before_cp949_error(blocks: ByteBlocks) -> int | None:
    """How many lines come before the first byte that is not strict CP949; None where all are."""
    decoder = codecs.getincrementaldecoder("cp949")()
    lines = 0
    for block in itertools.chain(blocks(), [b""]):
        pending = decoder.getstate()[0]
        try:
            decoder.decode(block, not block)
        except UnicodeDecodeError as error:
            return lines + (pending + block).count(b"\n", 0, error.start)
        lines += block.count(b"\n")
    return None


def _is_mostly_utf8(blocks: ByteBlocks) -> bool:
    """Are more than half of the bytes beyond ASCII letters of three bytes in UTF-8?"""
    beyond_ascii = in_letters = 0
    rest = b""
    for block in blocks():
        beyond_ascii += len(block.translate(None, _ASCII_BYTES))
        end = 0
        for letter in _UTF8_LETTER.finditer(rest + block):
            in_letters, end = in_letters + 3, letter.end()
        rest = (rest + block)[max(end, len(rest + block) - 2) :]  # a letter may be cut between two blocks
    return 2 * in_letters > beyond_ascii


def encoding_error(name: str, line: int, offset: int, byte: int, encoding: str) -> DataError:
    """The error for a byte that is not text.

    Args:
        name: of the file.
        line: number of its line.
        offset: how many bytes come before it.
        byte: the byte.
        encoding: "UTF-8", "UTF-16" or "CP949", which all before it is in; empty: none is known.
    """
    if not encoding:
        return DataError(
            message("files.unknown-encoding", "{name}:{line}: neither UTF-8 nor CP949 text", name=name, line=line),
            message("files.unknown-encoding.hint", "save it as UTF-8 and try again"),
        )  # fmt: skip
    return DataError(
        message(
            "files.damaged-text", "{name}:{line}: damaged {encoding}: byte {offset:,} (0x{byte:02X}) fits no letter",
            name=name, line=line, encoding=encoding, offset=offset, byte=byte,
        ),
        message("files.damaged-text.hint", "mend this line, or save the file again as UTF-8"),
    )  # fmt: skip
