"""Text to train a tokenizer on: text files and Wikipedia dumps -> cleaned lines, in pieces on all cores.

Each piece of the text becomes one file of cleaned lines in a work folder, whole or not at all, and is not
cleaned again: a run that was killed goes on where it was. Pieces depend on the text alone, not on the
number of cores, and the folder they lie in is named after what they were made of, so that pieces of another
text are never taken for these.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import disk_errors, make_folder, nfc, whole_file
from kovqa_core.process_pool import count, side_by_side
from kovqa_core.tokenizer import wikipedia

Told = Callable[[str, int, float], None]  # (what is counted, how many so far, share done or 0)
LONGEST = 9999  # bytes of a line; the trainer would drop a longer one
_PIECE = 16 << 20  # bytes read at once, by one process
_COUNTED = 1000  # lines between two words about progress
_SEED = 20240521  # of the lines chosen
_OTHER = re.compile(rb"[\x80-\xff][^\n]*")  # the rest of a line from its first letter beyond ASCII on
_STAMP = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Stretch:
    """Lines of a text file: its bytes from `start` to `end`."""

    path: Path
    start: int
    end: int
    encoding: str

    def lines(self) -> Iterator[str]:
        """The lines as they stand."""
        data = _read(self.path, self.start, self.end)
        try:
            yield from data.decode(self.encoding).splitlines()
        except UnicodeDecodeError as error:
            raise _no_text(self.path, self.start + error.start) from None


Piece = Stretch | wikipedia.Part


@dataclass(frozen=True)
class Corpus:
    """Cleaned lines on disk.

    Attributes:
        pieces: files of lines, in order.
        sources: of each input its path, bytes, sha256, licence and, of a dump, what it says of itself.
        lines: how many.
        characters: of all lines, line ends not counted.
        sha256: over the lines, each with its line end.
    """

    pieces: tuple[Path, ...]
    sources: tuple[dict[str, Any], ...]
    lines: int
    characters: int
    sha256: str

    def card(self) -> dict[str, Any]:
        """What a model's card says of it."""
        return {"corpus_sha256": self.sha256, "lines": self.lines, "characters": self.characters}


def clean(inputs: Sequence[Path], work: Path, told: Told | None = None) -> Corpus:
    """Clean dumps and text files into a work folder, or go on where that was interrupted.

    Args:
        inputs: Wikipedia dumps and text files (UTF-8 or CP949), told apart by what is in them.
        work: folder of the pieces; pieces of other inputs in it are removed.
        told: called with "bytes read" while the inputs are identified, "lines cleaned" afterwards.

    Raises:
        DataError: an input that cannot be read, is empty, or is no text.
        SettingsError: `work` holds something else, or cannot be written.
    """
    sources = [_source(path, told) for path in inputs]
    folder = _work_folder(work, sources)
    calls = [
        (piece, folder / f"{number:06}.txt")
        for number, piece in enumerate(itertools.chain.from_iterable(map(pieces, inputs)))
    ]
    left = [(piece, path) for piece, path in calls if not path.exists()]
    side_by_side(_clean, left, told and (lambda n, share: told("lines cleaned", n, share)))
    return _measured([path for _, path in calls], sources)


def pieces(path: Path) -> Sequence[Piece]:
    """A dump or text file in pieces that `lines` reads, in order; they survive pickling.

    Raises:
        DataError: it cannot be read, is empty, or is no text.
    """
    size = _size(path)
    return wikipedia.parts(path, -(-size // _PIECE)) if wikipedia.is_dump(path) else _stretches(path)


def lines(piece: Piece) -> Iterator[str]:
    """Cleaned lines of a piece: NFC, no blanks around, none empty, none longer than `LONGEST` bytes."""
    for line in piece.lines() if isinstance(piece, Stretch) else wikipedia.lines(piece):
        yield from _cut(nfc(line.strip()))


def chosen(corpus: Corpus, wanted: int) -> Iterator[str]:
    """At most `wanted` lines, each as likely as any other, in order; always the same of the same corpus."""
    chance, left = random.Random(_SEED), corpus.lines
    for path in corpus.pieces:
        with path.open(encoding="utf-8", newline="\n") as stream:
            for line in stream:
                if chance.random() * left < wanted:
                    wanted -= 1
                    yield line.rstrip("\n")
                left -= 1


# ------------------------------------------------------------------------------ the work folder


def _source(path: Path, told: Told | None) -> dict[str, Any]:
    size, digest = _size(path), hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_PIECE):
            digest.update(block)
            if told:
                told("bytes read", stream.tell(), stream.tell() / size)
    about = (
        {"kind": "dump", **wikipedia.about(path)}
        if wikipedia.is_dump(path)
        else {"kind": "text", "licence": None}
    )
    return {"path": str(path), "bytes": size, "sha256": digest.hexdigest(), **about}


def _size(path: Path) -> int:
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from None
    if not size:
        raise DataError(f"{path} is empty", "give text, one sentence a line, or a Wikipedia dump")
    return size


def _work_folder(work: Path, sources: Sequence[dict[str, Any]]) -> Path:
    made_of = [importlib.metadata.version("kovqa"), LONGEST, _PIECE, *(s["sha256"] for s in sources)]
    folder = work / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    with disk_errors(work):
        there = list(work.iterdir()) if work.exists() else []
        if any(not _STAMP.fullmatch(path.name) for path in there):
            raise SettingsError(
                f"{work} holds files of somebody else", "move them away or choose another file with -o"
            )
        for path in there:
            if path != folder:
                shutil.rmtree(path)
    return make_folder(folder)


def _clean(piece: Piece, path: Path) -> None:
    number = 0
    with whole_file(path) as stream:
        for number, line in enumerate(lines(piece), 1):
            stream.write(f"{line}\n".encode())
            if number % _COUNTED == 0:
                count(_COUNTED)
    count(number % _COUNTED)


def _measured(paths: Sequence[Path], sources: Sequence[dict[str, Any]]) -> Corpus:
    digest, n, characters = hashlib.sha256(), 0, 0
    for path in paths:
        with path.open(encoding="utf-8", newline="\n") as stream:
            while block := stream.read(_PIECE):
                digest.update(block.encode())
                n += block.count("\n")
                characters += len(block)
    characters -= n  # the line ends
    return Corpus(tuple(paths), tuple(sources), n, characters, digest.hexdigest())


# ------------------------------------------------------------------------------------ text files


def _stretches(path: Path) -> list[Stretch]:
    ends = list(_ends(path))
    places = list(itertools.pairwise([0, *ends]))
    encoding = _encoding(path, places)
    return [Stretch(path, start, end, encoding) for start, end in places]


def _ends(path: Path) -> Iterator[int]:
    """Where stretches end: after a line, or after a blank where a line is longer than a stretch."""
    size, end = path.stat().st_size, 0
    while size - end > _PIECE:
        data = _read(path, end, end + _PIECE)
        length = data.rfind(b"\n") + 1 or data.rfind(b" ") + 1
        if not length:
            raise DataError(
                f"{path}: {_PIECE >> 20} MB without a blank or line end are no text", "check the file"
            )
        end += length
        yield end
    if size > end:
        yield size


def _encoding(path: Path, places: Sequence[tuple[int, int]]) -> str:
    """UTF-8, or CP949 where the first line that tells the two apart is no UTF-8."""
    for start, end in places:
        if not (first := _OTHER.search(_read(path, start, end))):
            continue
        for encoding in ("utf-8-sig", "cp949"):
            try:
                first[0].decode(encoding)
                return encoding
            except UnicodeDecodeError:
                pass
        raise _no_text(path, start + first.start())
    return "utf-8"


def _read(path: Path, start: int, end: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(start)
        data = stream.read(end - start)
    if b"\0" in data:
        raise DataError(f"{path} is a binary file or UTF-16", "give text in UTF-8, one sentence a line")
    return data


def _no_text(path: Path, place: int) -> DataError:
    with path.open("rb") as stream:
        line = 1 + sum(block.count(b"\n") for block in _blocks_to(stream, place))
    return DataError(f"{path}:{line}: neither UTF-8 nor CP949 text", "save it as UTF-8 and try again")


def _blocks_to(stream: Any, place: int) -> Iterator[bytes]:
    while place > 0 and (block := stream.read(min(place, _PIECE))):
        place -= len(block)
        yield block


def _cut(line: str) -> Iterator[str]:
    """A line in parts of at most `LONGEST` bytes, cut at blanks; only a longer word is cut in itself."""
    data, start = line.encode(), 0
    while len(data) - start > LONGEST:
        end = data.rfind(b" ", start + 1, start + LONGEST + 1)
        if end < 0:
            end = start + LONGEST
            while data[end] & 0xC0 == 0x80:  # inside a letter
                end -= 1
        yield data[start:end].decode().strip()
        start = end
    if rest := data[start:].decode().strip():
        yield rest
