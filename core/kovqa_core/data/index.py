"""Raw data set -> an index folder; and an index folder -> examples, without reading it all.

An index folder holds `train.jsonl`, `val.jsonl`, `test.jsonl` (one example a line, questions as
text), a `.offsets` file beside each (where its lines begin, so that any line is found at once in
files of any size), `answers.txt` (from training rows only) and `index.json` (counts, fingerprint,
what was left out and why).
"""

from __future__ import annotations

import hashlib
import itertools
import mmap
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kovqa_core.data.answers import default_min_count, read_answers, vocabulary, write_answers
from kovqa_core.data.example import Example, parse_example
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import read_json, write_folder, write_json

SPLITS = ("train", "val", "test")
SCHEMA = 1
_SHOWN = 20  # rows left out that are listed by name, per reason


@dataclass
class LeftOut:
    """Rows that did not make it into the index, by reason."""

    counts: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, row: str) -> None:
        """Note one row ("id 17: 동물/a.jpg")."""
        self.counts[reason] += 1
        if len(self.shown.setdefault(reason, [])) < _SHOWN:
            self.shown[reason].append(row)


Rows = Iterator[tuple[str, Example]]  # (split, example)


@dataclass(frozen=True)
class Piece:
    """A part of a raw data set that can be read beside the others, in a process of its own.

    Attributes:
        read: gives the part's rows and notes those left out; must survive pickling, so it is a
            function of a module or a `functools.partial` of one.
        size: bytes to read, which tells whether several processes pay.
    """

    read: Callable[[LeftOut], Rows]
    size: int = 0


@dataclass(frozen=True)
class Options:
    """What a user may say about a raw data set beside where it lies.

    Attributes:
        columns: our name of a column -> the table's (`table`).
        language: "ko" or "en", where the set holds both (`nia`).
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    language: str = "ko"


def write_index(
    pieces: Sequence[Piece],
    name: str,
    root: Path,
    images: Path,
    folder: Path,
    min_count: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write the index of a raw data set; returns what stands in `index.json`.

    Args:
        pieces: the data set's parts, in the order their rows shall have (`data/sources`).
        name: the source's name.
        root: folder of the raw data.
        images: folder the examples' picture paths start from.
        folder: where the index appears, whole or not at all; an index there is replaced.
        min_count: how often a training answer must occur to become a class; None: by size.
        progress: called with the number of rows read so far.

    Raises:
        DataError: no row is left.
        SettingsError: `folder` holds something that is no index.
    """
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is a file", "choose another folder with -o")
    if folder.exists() and any(folder.iterdir()) and not (folder / "index.json").exists():
        raise SettingsError(f"{folder} holds files that are no index", "choose another folder with -o")
    left_out, report = LeftOut(), {}

    def fill(part: Path) -> None:
        rows = itertools.chain.from_iterable(piece.read(left_out) for piece in pieces)
        report.update(_write(part, rows, left_out, min_count, progress))
        report.update(source=name, root=str(root), images=os.path.relpath(images, folder.resolve()))
        write_json(part / "index.json", {"schema": SCHEMA, **report})

    write_folder(folder, fill)
    return report


def _write(
    part: Path, rows: Rows, left_out: LeftOut, min_count: int | None, progress: Callable[[int], None] | None
) -> dict[str, Any]:
    writers = {split: _SplitWriter(part / f"{split}.jsonl") for split in SPLITS}
    answers: Counter[str] = Counter()
    try:
        for number, (split, example) in enumerate(rows, 1):
            writers[split].add(example)
            if split == "train":
                answers.update(example.answers.keys())
            if progress and number % 1000 == 0:
                progress(number)
    finally:
        for writer in writers.values():
            writer.close()
    if not any(writer.rows for writer in writers.values()):
        first = next((f": {why}, {rows[0]}" for why, rows in left_out.shown.items()), "")
        raise DataError(f"no usable row found{first}", "check --root and --images")
    if min_count is None:
        min_count = default_min_count(writers["train"].rows)
    classes = vocabulary(answers, min_count)
    if min_count > 1:
        had = writers["train"].rows
        _drop_unknown(writers["train"], set(classes), min_count, left_out)
        if had and not writers["train"].rows:
            raise DataError(f"no answer occurs {min_count} times", "use a smaller --min-count")
    if classes:
        write_answers(part / "answers.txt", classes)
    return {
        "rows": {split: writer.rows for split, writer in writers.items()},
        "pictures": {split: len(writer.pictures) for split, writer in writers.items()},
        "answers": len(classes),
        "min_count": min_count,
        "covered": {split: writers[split].covered(set(classes)) for split in ("val", "test")},
        "pictures_shared_with_train": {
            split: len(writers[split].pictures & writers["train"].pictures) for split in ("val", "test")
        },
        "left_out": dict(left_out.counts),
        "left_out_rows": left_out.shown,
        "fingerprint": _fingerprint(writer.path for writer in writers.values()),
    }


class _SplitWriter:
    """One split's file and its offsets, written as rows come."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self._at = path, 0, 0
        self.pictures: set[str] = set()
        self._file, self._offsets = path.open("wb"), path.with_suffix(".offsets").open("wb")

    def add(self, example: Example) -> None:
        line = (example.line() + "\n").encode()
        self._file.write(line)
        self._offsets.write(self._at.to_bytes(8, "little"))
        self._at += len(line)
        self.rows += 1
        self.pictures.add(example.image)

    def close(self) -> None:
        self._file.close()
        self._offsets.close()

    def covered(self, classes: set[str]) -> float | None:
        """Share of rows of which some answer is a class; None without rows."""
        hits = sum(not classes.isdisjoint(example.answers) for example in Split(self.path))
        return round(hits / self.rows, 4) if self.rows else None


def _drop_unknown(writer: _SplitWriter, classes: set[str], min_count: int, left_out: LeftOut) -> None:
    """Rewrite a split without the rows of which no answer is a class."""
    spool = writer.path.with_suffix(".all")
    writer.path.rename(spool)
    writer.path.with_suffix(".offsets").rename(spool.with_suffix(".all.offsets"))
    again = _SplitWriter(writer.path)
    for example in Split(spool, spool.with_suffix(".all.offsets")):
        if classes.isdisjoint(example.answers):
            answer = next(iter(example.answers), "")
            left_out.add(f"answer seen fewer than {min_count} times", f"id {example.id}: {answer}")
        else:
            again.add(example)
    again.close()
    writer.rows, writer.pictures = again.rows, again.pictures
    spool.unlink()
    spool.with_suffix(".all.offsets").unlink()


def _fingerprint(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()


# ------------------------------------------------------------------------------------- reading


class Split(Sequence[Example]):
    """Examples of one `.jsonl` file; opening it reads nothing but the line numbers' places."""

    def __init__(self, path: Path, offsets: Path | None = None) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(f"no index file {path}", "write the index first: kovqa index SOURCE --root DIR")
        self._size = path.stat().st_size
        self._offsets = _line_starts(path, offsets or path.with_suffix(".offsets"), self._size)
        self._map: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, number: int) -> Example:  # type: ignore[override]  # no slices of millions
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        if self._map is None:
            with self.path.open("rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        end = int(self._offsets[number + 1]) if number + 1 < len(self) else self._size
        return parse_example(self._map[int(self._offsets[number]) : end], f"{self.path}:{number + 1}")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}  # every loader process opens its own


def _line_starts(path: Path, offsets: Path, size: int) -> np.ndarray:
    """Where each line begins: from the file beside it, or by looking when that is missing or older."""
    if size == 0:
        return np.zeros(0, np.uint64)
    data = np.memmap(path, np.uint8, "r")
    if offsets.is_file() and offsets.stat().st_mtime_ns >= path.stat().st_mtime_ns - 2_000_000_000:
        length = offsets.stat().st_size
        if length and length % 8 == 0:
            known = np.memmap(offsets, np.dtype("<u8"), "r")
            last = int(known[-1])
            begins_a_line = last == 0 or (last < size and data[last - 1] == ord("\n"))
            if known[0] == 0 and begins_a_line and ord("\n") not in data[last : size - 1]:
                return known
    ends = np.flatnonzero(data == ord("\n")).astype(np.uint64) + np.uint64(1)
    starts = np.concatenate([np.zeros(1, np.uint64), ends])
    return starts[starts < size]


@dataclass(frozen=True)
class Index:
    """An index folder."""

    folder: Path
    images: Path
    about: dict[str, Any]

    def split(self, name: str) -> Split:
        """The examples of "train", "val" or "test"."""
        return Split(self.folder / f"{name}.jsonl")

    def answers(self) -> list[str]:
        """The classes."""
        return read_answers(self.folder / "answers.txt")


def open_index(folder: Path, images: Path | None = None) -> Index:
    """Open an index folder.

    Args:
        folder: what `kovqa index` wrote.
        images: the pictures' folder, when it moved since.

    Raises:
        DataError: no index there, or no pictures' folder.
    """
    if not (folder / "index.json").is_file():
        raise DataError(f"no index in {folder}", f"write it first: kovqa index SOURCE --root DIR -o {folder}")
    about = read_json(folder / "index.json")
    pictures = images or Path(os.path.normpath(folder.resolve() / about["images"]))
    if not pictures.is_dir():
        raise DataError(
            f"the pictures of {folder} should lie in {pictures}, which is not there",
            "say where they are: --set data.images=DIR",
        )
    return Index(folder, pictures, about)
