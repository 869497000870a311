"""One piece of a raw data set, read into files of its own: lines, and what is to be known of each.

The lines of a split lie in one file; beside them stand, as arrays, each line's length, a checksum
of its id (to find ids that appear twice) and the number of its answers in the piece's table (to
drop rows no class fits, and to count, without reading a line again).
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from kovqa_core.data.example import Example, parse_example
from kovqa_core.index.shards import DatasetShard, LeftOutRows

_PROGRESS_ROWS = 1000  # rows between two words about progress


@dataclass
class SpooledRows:
    """The rows of one split in one piece.

    Attributes:
        path: their lines.
        lengths: bytes of each line [rows].
        ids: CRC-32 of each id [rows].
        answers: number of each row's answers in `table` [rows].
        table: the answers that appear together.
        pictures: number of each row's picture in `hashes` [rows].
        hashes: 64 bits for each picture's name [pictures].
    """

    path: Path
    lengths: np.ndarray
    ids: np.ndarray
    answers: np.ndarray
    table: list[tuple[str, ...]]
    pictures: np.ndarray
    hashes: np.ndarray

    def rows(self, kept: np.ndarray) -> Iterator[Example]:
        """The examples of the rows a mask [rows] marks."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        with self.path.open("rb") as stream:
            for row in np.flatnonzero(kept):
                stream.seek(int(ends[row] - self.lengths[row]))
                yield parse_example(stream.read(int(self.lengths[row])), f"{self.path}:{row + 1}")


@dataclass
class ShardSpool:
    """What became of one piece: its rows by split, and those left out."""

    splits: dict[str, SpooledRows] = field(default_factory=dict)
    left_out: LeftOutRows = field(default_factory=LeftOutRows)


def spool_shard(piece: DatasetShard, stem: Path, told: Callable[[int], None] | None = None) -> ShardSpool:
    """Read a piece into files that begin with `stem`.

    Args:
        piece: what to read.
        stem: path that the files' names begin with.
        told: called after every thousandth row, with 1000.
    """
    result, writers = ShardSpool(), dict[str, _SplitWriter]()
    try:
        for number, (split, example) in enumerate(piece.read(result.left_out), 1):
            if split not in writers:
                writers[split] = _SplitWriter(stem.with_name(f"{stem.name}.{split}"))
            writers[split].add(example, result.left_out)
            if told and number % _PROGRESS_ROWS == 0:
                told(_PROGRESS_ROWS)
    finally:
        for writer in writers.values():
            writer.file.close()
    result.splits = {split: writer.lines() for split, writer in writers.items()}
    return result


class _SplitWriter:
    """Collects the rows of one split."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path.open("wb", buffering=1 << 20)
        self._lengths, self._ids, self._answers = array("I"), array("I"), array("I")
        self._table: dict[tuple[str, ...], int] = {}
        self._pictures: dict[str, int] = {}
        self._picture = array("I")

    def add(self, example: Example, left_out: LeftOutRows) -> None:
        try:
            line = f"{example.line()}\n".encode()
        except UnicodeEncodeError:
            left_out.add("text with half a character", f"id {example.id!r}")
            return
        self.file.write(line)
        self._lengths.append(len(line))
        self._ids.append(zlib.crc32(example.id.encode()))
        self._answers.append(self._table.setdefault(tuple(example.answers), len(self._table)))
        self._picture.append(self._pictures.setdefault(example.image, len(self._pictures)))

    def lines(self) -> SpooledRows:
        hashes = [blake2b(name.encode(), digest_size=8).digest() for name in self._pictures]
        return SpooledRows(
            self.path, np.array(self._lengths), np.array(self._ids), np.array(self._answers),
            list(self._table), np.array(self._picture), np.frombuffer(b"".join(hashes), np.uint64),
        )  # fmt: skip
