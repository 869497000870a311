"""A text file in chunks that processes read side by side: where they may be cut, and in which encoding it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.file_kind import find_file_kind
from kovqa_core.errors import DataError
from kovqa_core.files import open_file
from kovqa_core.messages import message
from kovqa_core.text_encoding import detect_encoding, encoding_error

CHUNK_BYTES = 16 << 20  # bytes read at once, by one process
_HEAD_BYTES = 1024


@dataclass(frozen=True)
class TextChunk:
    """Lines of a text file: its bytes from `start` to `end`; in UTF-16, all of them."""

    path: Path
    start: int
    end: int
    encoding: str

    def lines(self) -> Iterator[str]:
        """The lines as they stand."""
        # Opened anew for each chunk: a chunk travels to another process, which has no open file of ours.
        data = _read_chunk(self.path, self.start, self.end, self.encoding)
        try:
            yield from data.decode(self.encoding).splitlines()
        except UnicodeDecodeError as error:
            offset, byte = self.start + error.start, data[error.start]
            raise _damaged_text_error(self.path, offset, byte, self.encoding) from None


def split_text_file(path: Path) -> list[TextChunk]:
    """A text file's chunks, in order: a whole number of lines each; UTF-16 in one.

    Raises:
        DataError: it is not text.
    """
    _require_no_page(path)
    encoding = detect_encoding(lambda: _blocks_until(path))
    if encoding == "utf-16":
        return [TextChunk(path, 0, path.stat().st_size, encoding)]
    ends = list(_chunk_ends(path))
    ranges = list(itertools.pairwise([0, *ends]))
    return [TextChunk(path, start, end, encoding) for start, end in ranges]


def _chunk_ends(path: Path) -> Iterator[int]:
    """Where chunks end: after a line, or after a space where a line is longer than a chunk."""
    size, end = path.stat().st_size, 0
    while size - end > CHUNK_BYTES:
        data = _read_chunk(path, end, end + CHUNK_BYTES)
        # At a line feed or a space, both one byte in UTF-8 and in CP949, and never a part of a letter there.
        length = data.rfind(b"\n") + 1 or data.rfind(b" ") + 1
        if not length:
            raise DataError(
                message(
                    "tokenizer.not-text",
                    "{path} is not text: {megabytes} MB without a space or line end",
                    path=path,
                    megabytes=CHUNK_BYTES >> 20,
                ),
                message("tokenizer.not-text.hint", "check the file"),
            )
        end += length
        yield end
    if size > end:
        yield size


def _read_chunk(path: Path, start: int, end: int, encoding: str = "") -> bytes:
    with open_file(path) as stream:
        stream.seek(start)
        data = stream.read(end - start)
    # UTF-16 without a byte-order mark has a NUL in every ASCII letter; text in UTF-8 or CP949 has none.
    if encoding != "utf-16" and b"\0" in data:
        raise _binary_file_error(path)
    return data


def _require_no_page(path: Path) -> None:
    """A download that failed leaves an HTML page or a server's XML under the name of the dump: no corpus."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return
    if kind := find_file_kind(path):
        raise DataError(
            message(
                "tokenizer.page",
                "{path} is {kind}, neither a MediaWiki export nor text",
                path=path,
                kind=kind.name,
            ),
            message(
                "tokenizer.page.hint",
                "fetch it again (kovqa download kowiki), or give the text of the page, one sentence a line",
            ),
        )


def _binary_file_error(path: Path) -> DataError:
    hint = message("tokenizer.binary-file.hint", "give text in UTF-8, one sentence a line")
    if kind := find_file_kind(path):
        return DataError(
            message("tokenizer.other-file", "{path} is {kind}, not text", path=path, kind=kind.name), hint
        )
    return DataError(
        message(
            "tokenizer.binary-file", "{path} is a binary file, or UTF-16 without a byte-order mark", path=path
        ),
        hint,
    )


def _damaged_text_error(path: Path, offset: int, byte: int, encoding: str) -> DataError:
    line = 1 + sum(block.count(b"\n") for block in _blocks_until(path, offset))
    name = {"cp949": "CP949", "utf-16": "UTF-16"}.get(encoding, "UTF-8")
    return encoding_error(str(path), line, offset, byte, name)


def _blocks_until(path: Path, end: int | None = None) -> Iterator[bytes]:
    left = path.stat().st_size if end is None else end
    with open_file(path) as stream:
        while left > 0 and (block := stream.read(min(left, CHUNK_BYTES))):
            left -= len(block)
            yield block
