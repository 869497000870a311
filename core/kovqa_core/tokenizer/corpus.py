"""Text to train a tokenizer on: text files, tables and Wikipedia dumps -> cleaned lines, in chunks on all cores.

Each chunk of the text becomes one file of cleaned lines in a work folder, whole or not at all, and is not
cleaned again: a run that was killed goes on where it was. Chunks depend on the text alone, not on the
number of cores, and the folder they lie in is named after what they were made of, so that chunks of another
text are never taken for these.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kovqa_core import __version__
from kovqa_core.errors import DataError, KovqaError, SettingsError
from kovqa_core.files import atomic_file, disk_errors, make_folder, open_file, read_json, to_nfc, write_json
from kovqa_core.messages import message
from kovqa_core.process_pool import add_to_count, parallel_map
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.tokenizer import text_file, wikipedia
from kovqa_core.tokenizer.table_text import TEXT_COLUMNS, TableChunk, corpus_file, is_table
from kovqa_core.tokenizer.unlearnable import unlearnable_reason

MAX_LINE_BYTES = 9999  # bytes of a line; the trainer would drop a longer one
_PROGRESS_LINES = 1000  # lines between two reports of progress
_SAMPLE_SEED = 20240521  # of the lines chosen
_WORK_FOLDER_NAME = re.compile(r"[0-9a-f]{16}")


CorpusChunk = text_file.TextChunk | TableChunk | wikipedia.DumpSlice


@dataclass(frozen=True)
class CleanCorpus:
    """Cleaned lines on disk.

    Attributes:
        chunk_files: files of lines, in order.
        sources: of each input its path, bytes, sha256, licence and, of a dump, what it says of itself.
        lines: how many.
        characters: of all lines, line ends not counted.
        sha256: over the lines, each with its line end.
        left_out: lines that nothing can be learned from, by reason.
    """

    chunk_files: tuple[Path, ...]
    sources: tuple[dict[str, Any], ...]
    lines: int
    characters: int
    sha256: str
    left_out: Counter[str] = field(default_factory=Counter)

    def card_fields(self) -> dict[str, Any]:
        """What a model's card says of it (`TokenizerCard`)."""
        return {
            "corpus_sha256": self.sha256,
            "lines": self.lines,
            "characters": self.characters,
            "left_out": dict(sorted(self.left_out.items())) or None,
        }


def clean_corpus(
    inputs: Sequence[Path],
    work_folder: Path,
    on_progress: OnProgress = ignore_progress,
    *,
    columns: Sequence[str] = (),
) -> CleanCorpus:
    """Clean dumps, text files and tables into a work folder, or go on where that was interrupted.

    Args:
        inputs: Wikipedia dumps, text files (UTF-8, UTF-16 or CP949), tables and index folders, told apart by
            what is in them; of an index, the training split.
        work_folder: where the cleaned chunks lie; chunks of other inputs in it are removed.
        columns: of tables, those with text; none: the known ones (`table_text.TEXT_COLUMNS`).

    Raises:
        DataError: an input that cannot be read, is empty, or is not text; nothing is kept then.
        SettingsError: `work_folder` holds something else, or cannot be written.
        MachineError: the disk is full; nothing is kept then.
    """
    inputs = [corpus_file(path) for path in inputs]
    sources = [_source_record(path, columns, on_progress) for path in inputs]
    # Sources are hashed whole before any cleaning: the hash names the folder, so a changed text never meets old chunks.
    folder = _prepare_work_folder(work_folder, sources)
    with discarded_on_failure(work_folder, KovqaError):
        return _clean_into(folder, inputs, sources, columns, on_progress)


@contextlib.contextmanager
def discarded_on_failure(work_folder: Path, *errors: type[KovqaError]) -> Iterator[None]:
    """Remove cleaned chunks when one of these errors ends the block: the same command would meet it again."""
    try:
        yield
    except errors:
        discard_work_folder(work_folder)
        raise


def discard_work_folder(work_folder: Path) -> None:
    """Remove cleaned chunks; a folder with anything else in it stays, with that."""
    for path in work_folder.iterdir() if work_folder.is_dir() else ():
        if _WORK_FOLDER_NAME.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # not empty, or not there
        work_folder.rmdir()


def _clean_into(
    folder: Path,
    inputs: Sequence[Path],
    sources: Sequence[dict[str, Any]],
    columns: Sequence[str],
    on_progress: OnProgress,
) -> CleanCorpus:
    chunks = itertools.chain.from_iterable(corpus_chunks(path, columns) for path in inputs)
    calls = [(chunk, folder / f"{number:06}.txt") for number, chunk in enumerate(chunks)]
    # A chunk file is there whole or not at all (`atomic_file`), so being there is being finished. Of a folder whose
    # removal was killed, the count beside it may be gone.
    to_clean = [
        (chunk, path) for chunk, path in calls if not (path.exists() and _left_out_path(path).exists())
    ]
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


def corpus_chunks(path: Path, columns: Sequence[str] = ()) -> Sequence[CorpusChunk]:
    """A dump, text file or table in chunks that `chunk_lines` reads, in order; they survive pickling.

    Args:
        columns: see `clean_corpus`.

    Raises:
        DataError: it cannot be read, is empty, or is not text.
    """
    size = _source_bytes(path)
    if wikipedia.is_mediawiki_dump(path):
        return wikipedia.dump_slices(path, -(-size // text_file.CHUNK_BYTES))
    return [TableChunk(path, tuple(columns))] if is_table(path) else text_file.split_text_file(path)


def chunk_lines(chunk: CorpusChunk, left_out: Counter[str] | None = None) -> Iterator[str]:
    """Cleaned lines of a chunk: NFC, no spaces around, none empty, none longer than `MAX_LINE_BYTES`.

    Args:
        left_out: counts lines that nothing can be learned from, by reason; those are not given then.
    """
    lines = wikipedia.article_lines(chunk) if isinstance(chunk, wikipedia.DumpSlice) else chunk.lines()
    for line in lines:
        cleaned = to_nfc(line.strip())
        if left_out is not None and cleaned and (reason := unlearnable_reason(cleaned)):
            left_out[reason] += 1
        else:
            yield from _split_long_line(cleaned)


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


def _source_record(path: Path, columns: Sequence[str], on_progress: OnProgress) -> dict[str, Any]:
    size, digest = _source_bytes(path), hashlib.sha256()
    stage = message("tokenizer.reading", "reading {file}", file=path.name)
    with open_file(path) as stream:
        while block := stream.read(text_file.CHUNK_BYTES):
            digest.update(block)
            on_progress(Progress(stage, stream.tell(), size, "bytes"))
    about: dict[str, Any] = {"kind": "text", "licence": None}
    if wikipedia.is_mediawiki_dump(path):
        about = {"kind": "dump", **wikipedia.dump_metadata(path)}
    elif is_table(path):
        about = {"kind": "table", "licence": None, "columns": list(columns or TEXT_COLUMNS)}
    return {"path": str(path), "bytes": size, "sha256": digest.hexdigest(), **about}


def _source_bytes(path: Path) -> int:
    with open_file(path) as stream:
        size = os.fstat(stream.fileno()).st_size
    if not size:
        raise DataError(
            message("tokenizer.empty-input", "{path} is empty", path=path),
            message("tokenizer.empty-input.hint", "give text, one sentence a line, or a Wikipedia dump"),
        )
    return size


def _prepare_work_folder(work_folder: Path, sources: Sequence[dict[str, Any]]) -> Path:
    # All that decides what the chunks hold; the version too, because the cleaning rules change with it.
    made_of = [
        __version__,
        MAX_LINE_BYTES,
        text_file.CHUNK_BYTES,
        *((s["sha256"], s.get("columns")) for s in sources),
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
    number, left_out = 0, Counter[str]()
    with atomic_file(path) as stream:
        for number, line in enumerate(chunk_lines(chunk, left_out), 1):
            stream.write(f"{line}\n".encode())
            if number % _PROGRESS_LINES == 0:
                add_to_count(_PROGRESS_LINES)
        # Before the chunk has its name: a chunk that is there is finished, and its count must be there too.
        write_json(_left_out_path(path), left_out)
    add_to_count(number % _PROGRESS_LINES)


def _left_out_path(chunk_file: Path) -> Path:
    return chunk_file.with_suffix(".json")


def _measure_corpus(paths: Sequence[Path], sources: Sequence[dict[str, Any]]) -> CleanCorpus:
    digest, lines, characters, left_out = hashlib.sha256(), 0, 0, Counter[str]()
    for path in paths:
        left_out.update(read_json(_left_out_path(path)))
        with path.open(encoding="utf-8", newline="\n") as stream:
            while block := stream.read(text_file.CHUNK_BYTES):
                digest.update(block.encode())
                lines += block.count("\n")
                characters += len(block)
    characters -= lines  # the line ends
    return CleanCorpus(tuple(paths), tuple(sources), lines, characters, digest.hexdigest(), left_out)


# ------------------------------------------------------------------------------------ long lines


def _split_long_line(line: str) -> Iterator[str]:
    """A line in parts of at most `MAX_LINE_BYTES`, cut at spaces; only a longer word is cut in itself."""
    data, start = line.encode("utf-8", "replace"), 0  # half a surrogate pair: "?"
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
