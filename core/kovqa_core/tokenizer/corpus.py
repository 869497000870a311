"""Text to train a tokenizer on: text files and Wikipedia dumps -> cleaned lines, in chunks on all cores.

Each chunk of the text becomes one file of cleaned lines in a work folder, whole or not at all, and is not
cleaned again: a run that was killed goes on where it was. Chunks depend on the text alone, not on the
number of cores, and the folder they lie in is named after what they were made of, so that chunks of another
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import atomic_file, disk_errors, make_folder, to_nfc
from kovqa_core.messages import message
from kovqa_core.process_pool import add_to_count, parallel_map
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.text_encoding import detect_encoding, encoding_error
from kovqa_core.tokenizer import wikipedia

MAX_LINE_BYTES = 9999  # bytes of a line; the trainer would drop a longer one
_TEXT_CHUNK_BYTES = 16 << 20  # bytes read at once, by one process
_PROGRESS_LINES = 1000  # lines between two reports of progress
_SAMPLE_SEED = 20240521  # of the lines chosen
_WORK_FOLDER_NAME = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class TextChunk:
    """Lines of a text file: its bytes from `start` to `end`."""

    path: Path
    start: int
    end: int
    encoding: str

    def lines(self) -> Iterator[str]:
        """The lines as they stand."""
        # Opened anew for each chunk: a chunk travels to another process, which has no open file of ours.
        data = _read_chunk(self.path, self.start, self.end)
        try:
            yield from data.decode(self.encoding).splitlines()
        except UnicodeDecodeError as error:
            offset, byte = self.start + error.start, data[error.start]
            raise _encoding_error(self.path, offset, byte, self.encoding) from None


CorpusChunk = TextChunk | wikipedia.DumpSlice


@dataclass(frozen=True)
class CleanCorpus:
    """Cleaned lines on disk.

    Attributes:
        chunk_files: files of lines, in order.
        sources: of each input its path, bytes, sha256, licence and, of a dump, what it says of itself.
        lines: how many.
        characters: of all lines, line ends not counted.
        sha256: over the lines, each with its line end.
    """

    chunk_files: tuple[Path, ...]
    sources: tuple[dict[str, Any], ...]
    lines: int
    characters: int
    sha256: str

    def card_fields(self) -> dict[str, Any]:
        """What a model's card says of it (`TokenizerCard`)."""
        return {"corpus_sha256": self.sha256, "lines": self.lines, "characters": self.characters}


def clean_corpus(
    inputs: Sequence[Path], work_folder: Path, on_progress: OnProgress = ignore_progress
) -> CleanCorpus:
    """Clean dumps and text files into a work folder, or go on where that was interrupted.

    Args:
        inputs: Wikipedia dumps and text files (UTF-8 or CP949), told apart by what is in them.
        work_folder: where the cleaned chunks lie; chunks of other inputs in it are removed.

    Raises:
        DataError: an input that cannot be read, is empty, or is not text.
        SettingsError: `work_folder` holds something else, or cannot be written.
    """
    sources = [_source_record(path, on_progress) for path in inputs]
    # Sources are hashed whole before any cleaning: the hash names the folder, so a changed text never meets old chunks.
    folder = _prepare_work_folder(work_folder, sources)
    calls = [
        (chunk, folder / f"{number:06}.txt")
        for number, chunk in enumerate(itertools.chain.from_iterable(map(corpus_chunks, inputs)))
    ]
    # A chunk file is there whole or not at all (`atomic_file`), so being there is being finished.
    to_clean = [(chunk, path) for chunk, path in calls if not path.exists()]
    stage = message("tokenizer.cleaning", "cleaning the text")

    def report_lines(progress: Progress) -> None:
        on_progress(Progress(stage, progress.done, None, "lines", progress.fraction))

    parallel_map(_clean_chunk, to_clean, on_progress=report_lines)
    return _measure_corpus([path for _, path in calls], sources)


def no_text_error(inputs: Sequence[Path]) -> DataError:
    """The error for inputs that hold nothing to learn from."""
    return DataError(
        message("tokenizer.no-text", "no text in {files}", files=", ".join(map(str, inputs))),
        message("tokenizer.no-text.hint", "give text files, one sentence a line"),
    )


def corpus_chunks(path: Path) -> Sequence[CorpusChunk]:
    """A dump or text file in chunks that `chunk_lines` reads, in order; they survive pickling.

    Raises:
        DataError: it cannot be read, is empty, or is not text.
    """
    size = _source_bytes(path)
    return (
        wikipedia.dump_slices(path, -(-size // _TEXT_CHUNK_BYTES))
        if wikipedia.is_mediawiki_dump(path)
        else _split_text_file(path)
    )


def chunk_lines(chunk: CorpusChunk) -> Iterator[str]:
    """Cleaned lines of a chunk: NFC, no spaces around, none empty, none longer than `MAX_LINE_BYTES`."""
    for line in chunk.lines() if isinstance(chunk, TextChunk) else wikipedia.article_lines(chunk):
        yield from _split_long_line(to_nfc(line.strip()))


def sample_lines(corpus: CleanCorpus, wanted: int) -> Iterator[str]:
    """At most `wanted` lines, each as likely as any other, in order; always the same of the same corpus."""
    # Selection sampling (Knuth, Algorithm S): of the lines not yet seen, each is as likely as any other.
    rng, unseen = random.Random(_SAMPLE_SEED), corpus.lines
    for path in corpus.chunk_files:
        with path.open(encoding="utf-8", newline="\n") as stream:
            for line in stream:
                if rng.random() * unseen < wanted:
                    wanted -= 1
                    yield line.rstrip("\n")
                unseen -= 1


# ------------------------------------------------------------------------------ the work folder


def _source_record(path: Path, on_progress: OnProgress) -> dict[str, Any]:
    size, digest = _source_bytes(path), hashlib.sha256()
    stage = message("tokenizer.reading", "reading {file}", file=path.name)
    with path.open("rb") as stream:
        while block := stream.read(_TEXT_CHUNK_BYTES):
            digest.update(block)
            on_progress(Progress(stage, stream.tell(), size, "bytes"))
    about = (
        {"kind": "dump", **wikipedia.dump_metadata(path)}
        if wikipedia.is_mediawiki_dump(path)
        else {"kind": "text", "licence": None}
    )
    return {"path": str(path), "bytes": size, "sha256": digest.hexdigest(), **about}


def _source_bytes(path: Path) -> int:
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
    except OSError as error:
        raise DataError(
            message(
                "tokenizer.cannot-read", "cannot read {path}: {reason}", path=path, reason=error.strerror
            ),
            message("tokenizer.cannot-read.hint", "check the path"),
        ) from None
    if not size:
        raise DataError(
            message("tokenizer.empty-input", "{path} is empty", path=path),
            message("tokenizer.empty-input.hint", "give text, one sentence a line, or a Wikipedia dump"),
        )
    return size


def _prepare_work_folder(work_folder: Path, sources: Sequence[dict[str, Any]]) -> Path:
    # All that decides what the chunks hold; the version too, because the cleaning rules change with it.
    made_of = [
        importlib.metadata.version("kovqa"),
        MAX_LINE_BYTES,
        _TEXT_CHUNK_BYTES,
        *(s["sha256"] for s in sources),
    ]
    folder = work_folder / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    with disk_errors(work_folder):
        leftovers = list(work_folder.iterdir()) if work_folder.exists() else []
        # Before anything is removed: a folder of somebody else's files is no work folder.
        if any(not _WORK_FOLDER_NAME.fullmatch(path.name) for path in leftovers):
            raise SettingsError(
                message(
                    "tokenizer.foreign-files",
                    "{folder} holds files that kovqa did not write",
                    folder=work_folder,
                ),
                message("tokenizer.foreign-files.hint", "move them away or choose another file with -o"),
            )
        for path in leftovers:
            if path != folder:
                shutil.rmtree(path)
    return make_folder(folder)


def _clean_chunk(chunk: CorpusChunk, path: Path) -> None:
    number = 0
    with atomic_file(path) as stream:
        for number, line in enumerate(chunk_lines(chunk), 1):
            stream.write(f"{line}\n".encode())
            if number % _PROGRESS_LINES == 0:
                add_to_count(_PROGRESS_LINES)
    add_to_count(number % _PROGRESS_LINES)


def _measure_corpus(paths: Sequence[Path], sources: Sequence[dict[str, Any]]) -> CleanCorpus:
    digest, lines, characters = hashlib.sha256(), 0, 0
    for path in paths:
        with path.open(encoding="utf-8", newline="\n") as stream:
            while block := stream.read(_TEXT_CHUNK_BYTES):
                digest.update(block.encode())
                lines += block.count("\n")
                characters += len(block)
    characters -= lines  # the line ends
    return CleanCorpus(tuple(paths), tuple(sources), lines, characters, digest.hexdigest())


# ------------------------------------------------------------------------------------ text files


def _split_text_file(path: Path) -> list[TextChunk]:
    ends = list(_chunk_ends(path))
    ranges = list(itertools.pairwise([0, *ends]))
    encoding = _require_text_encoding(path)
    return [TextChunk(path, start, end, encoding) for start, end in ranges]


def _chunk_ends(path: Path) -> Iterator[int]:
    """Where chunks end: after a line, or after a space where a line is longer than a chunk."""
    size, end = path.stat().st_size, 0
    while size - end > _TEXT_CHUNK_BYTES:
        data = _read_chunk(path, end, end + _TEXT_CHUNK_BYTES)
        # At a line feed or a space, both one byte in UTF-8 and in CP949, and never a part of a letter there.
        length = data.rfind(b"\n") + 1 or data.rfind(b" ") + 1
        if not length:
            raise DataError(
                message(
                    "tokenizer.not-text",
                    "{path} is not text: {megabytes} MB without a space or line end",
                    path=path,
                    megabytes=_TEXT_CHUNK_BYTES >> 20,
                ),
                message("tokenizer.not-text.hint", "check the file"),
            )
        end += length
        yield end
    if size > end:
        yield size


def _require_text_encoding(path: Path) -> str:
    """The codec of a text file's chunks.

    Raises:
        DataError: it is UTF-16, whose chunks cannot be decoded one by one.
    """
    encoding = detect_encoding(lambda: _read_blocks(path))
    if encoding == "utf-16":
        raise _binary_file_error(path)
    return encoding


def _read_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(_TEXT_CHUNK_BYTES):
            yield block


def _read_chunk(path: Path, start: int, end: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(start)
        data = stream.read(end - start)
    # UTF-16 has a NUL in every ASCII letter; text in UTF-8 or CP949 has none.
    if b"\0" in data:
        raise _binary_file_error(path)
    return data


def _binary_file_error(path: Path) -> DataError:
    return DataError(
        message("tokenizer.binary-file", "{path} is a binary file or UTF-16", path=path),
        message("tokenizer.binary-file.hint", "give text in UTF-8, one sentence a line"),
    )


def _encoding_error(path: Path, offset: int, byte: int, encoding: str) -> DataError:
    with path.open("rb") as stream:
        line = 1 + sum(block.count(b"\n") for block in _blocks_until(stream, offset))
    return encoding_error(str(path), line, offset, byte, "CP949" if encoding == "cp949" else "UTF-8")


def _blocks_until(stream: IO[bytes], offset: int) -> Iterator[bytes]:
    while offset > 0 and (block := stream.read(min(offset, _TEXT_CHUNK_BYTES))):
        offset -= len(block)
        yield block


def _split_long_line(line: str) -> Iterator[str]:
    """A line in parts of at most `MAX_LINE_BYTES`, cut at spaces; only a longer word is cut in itself."""
    data, start = line.encode(), 0
    while len(data) - start > MAX_LINE_BYTES:
        end = data.rfind(b" ", start + 1, start + MAX_LINE_BYTES + 1)
        if end < 0:
            end = start + MAX_LINE_BYTES
            while data[end] & 0xC0 == 0x80:  # a continuation byte of UTF-8: inside a letter
                end -= 1
        yield data[start:end].decode().strip()
        start = end
    if rest := data[start:].decode().strip():
        yield rest
