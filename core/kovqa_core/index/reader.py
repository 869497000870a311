"""An index folder, and its examples without reading it all.

An index folder holds `train.jsonl`, `val.jsonl`, `test.jsonl` (one example a line, questions as
text), a `.offsets` file beside each (where its lines begin, so that any line is found at once in
files of any size), `answers.txt` (from training rows only) and `index.json` (counts, fingerprint,
what was left out and why).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovqa_core.data.answers import read_answers
from kovqa_core.data.example import Example, parse_example
from kovqa_core.errors import DataError
from kovqa_core.files import read_json

if TYPE_CHECKING:
    import numpy as np  # 0.07 s that a plan, which only opens the index, does without

SPLIT_NAMES = ("train", "val", "test")
INDEX_SCHEMA = 1


class IndexSplit(Sequence[Example]):
    """Examples of one `.jsonl` file; opening it reads nothing but the line numbers' places."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(f"no index file {path}", "write the index first: kovqa index SOURCE --root DIR")
        self._size = path.stat().st_size
        self._offsets = _line_offsets(path, path.with_suffix(".offsets"), self._size)
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


class SplitSubset(Sequence[Example]):
    """Some rows of a split, by number."""

    def __init__(self, split: IndexSplit, numbers: np.ndarray) -> None:
        self.split, self.numbers = split, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> Example:  # type: ignore[override]
        return self.split[int(self.numbers[number])]


def filter_question_types(split: IndexSplit, kinds: Collection[str]) -> Sequence[Example]:
    """The rows of some kinds; the whole split where none is named. Reads it once.

    Raises:
        DataError: no row is of such a kind.
    """
    if not kinds or not len(split):
        return split
    import numpy as np

    there = [example.question_type for example in split]
    numbers = np.flatnonzero(np.isin(there, list(kinds)))
    if not len(numbers):
        raise DataError(
            f"{split.path} has no row of kind {', '.join(kinds)}",
            f"its kinds: {', '.join(sorted(set(there))) or 'none'}",
        )
    return SplitSubset(split, numbers)


def _line_offsets(path: Path, offsets: Path, size: int) -> np.ndarray:
    """Where each line begins: from the file beside it, or by looking when that is missing or older."""
    import numpy as np

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
class IndexFolder:
    """An index folder."""

    folder: Path
    images: Path
    about: dict[str, Any]

    def split(self, name: str) -> IndexSplit:
        """The examples of "train", "val" or "test"."""
        return IndexSplit(self.folder / f"{name}.jsonl")

    def answers(self) -> list[str]:
        """The classes."""
        return read_answers(self.folder / "answers.txt")


def open_index(folder: Path, images: Path | None = None) -> IndexFolder:
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
            "say where they are: --images DIR, or for training --set data.images=DIR",
        )
    return IndexFolder(folder, pictures, about)


def table_image_folder(table: Path) -> Path:
    """Where a table's pictures lie: as its index says, else beside the table."""
    if (table.parent / "index.json").is_file():
        return open_index(table.parent).images
    return table.parent
