"""One shard of a raw data set, read into files of its own: lines, and what must be known of each.

The lines of a split are in one file; beside it, as arrays, are each line's length, a checksum of its id
(to find ids that appear twice) and the number of its answers in the shard's list of answer sets (to drop
rows that no class fits, and to count, without reading a line again).
"""

from __future__ import annotations

import os
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from kovqa_core.data.example import Example, line_with_image, parse_example
from kovqa_core.data.row_ids import qualified_id
from kovqa_core.data.tar_images import folder_on_disk
from kovqa_core.index.left_out import HALF_CHARACTER, ID_TOO_LONG, MAX_ID_CHARS, LeftOutRows
from kovqa_core.index.report import EMBEDDED_IMAGES_FOLDER
from kovqa_core.index.row_extras import row_traits
from kovqa_core.index.shards import DatasetShard
from kovqa_core.messages import message

_PROGRESS_ROWS = 1000  # rows between two reports of progress


@dataclass
class SpooledRows:
    """The rows of one split in one shard.

    Attributes:
        path: file of their lines.
        lengths: bytes of each line [rows].
        id_checksums: CRC-32 of each id [rows].
        answer_numbers: number of each row's answers in `answer_sets` [rows].
        answer_sets: the different combinations of answers, a row's most frequent answer first.
        image_numbers: number of each row's image in `image_hashes` [rows].
        image_hashes: 64 bits for each image's name [images].
        row_traits: `row_extras.row_traits` of each row [rows].
        other_columns: names of the columns that rows hand on.
        absolute_folder: that all images lie below which have an absolute path; "" if none has.
        has_relative: has any image a path below the image folder?
    """

    path: Path
    lengths: np.ndarray
    id_checksums: np.ndarray
    answer_numbers: np.ndarray
    answer_sets: list[tuple[str, ...]]
    image_numbers: np.ndarray
    image_hashes: np.ndarray
    row_traits: np.ndarray
    other_columns: tuple[str, ...] = ()
    absolute_folder: str = ""
    has_relative: bool = field(default=True, kw_only=True)

    def examples(self, mask: np.ndarray) -> Iterator[Example]:
        """The examples of the rows that a mask [rows] marks."""
        # 64 bits: the lengths have 32, and their sum passes 4 GiB.
        ends = np.cumsum(self.lengths, dtype=np.int64)
        with self.path.open("rb") as stream:
            for row in np.flatnonzero(mask):
                stream.seek(int(ends[row] - self.lengths[row]))
                yield parse_example(stream.read(int(self.lengths[row])), f"{self.path}:{row + 1}")

    def qualify_ids(self, is_qualified: np.ndarray, number: np.ndarray) -> None:
        """Write the lines again with ids that their images tell apart (`data/row_ids.py`).

        Args:
            is_qualified: the rows to change [rows].
            number: that follows their qualified ids, 0 where none does [rows].
        """

        def qualify(row: int, line: bytes) -> bytes:
            if not is_qualified[row]:
                return line
            example = parse_example(line, f"{self.path}:{row + 1}")
            id = qualified_id(example.id, example.image, int(number[row]))
            return f"{replace(example, id=id).line()}\n".encode()

        self._rewrite(qualify)

    def move_image_folder(self, old: Path, new: Path) -> None:
        """Write the lines again with image paths that start from another folder; image hashes stay.

        Args:
            old: that they start from now, unless they are absolute.
            new: above all images.
        """
        self._rewrite(lambda row, line: line_with_image(line, lambda path: _path_from(new, old, path)))

    def _rewrite(self, change: Callable[[int, bytes], bytes]) -> None:
        written = self.path.with_name(f"{self.path.name}.ids")
        with self.path.open("rb") as old, written.open("wb", buffering=1 << 20) as new:
            for row in range(len(self.lengths)):
                line = change(row, old.read(int(self.lengths[row])))
                self.lengths[row] = len(line)
                new.write(line)
        written.replace(self.path)


def _path_from(folder: Path, images: Path, path: str) -> str:
    whole = os.path.join(images, path).replace(os.sep, "/")  # noqa: PTH118
    return whole[len(folder.as_posix().rstrip("/")) + 1 :]


@dataclass
class ShardSpool:
    """What became of one shard: its rows by split, and those left out."""

    splits: dict[str, SpooledRows] = field(default_factory=dict)
    left_out: LeftOutRows = field(default_factory=LeftOutRows)


def spool_shard(shard: DatasetShard, stem: Path, count_rows: Callable[[int], None]) -> ShardSpool:
    """Read a shard into files.

    Args:
        shard: what to read.
        stem: path that the files' names begin with.
        count_rows: called with 1000 after every thousandth row.
    """
    spool, writers = ShardSpool(), dict[str, _SplitWriter]()
    left_out = spool.left_out
    images = stem.with_name(EMBEDDED_IMAGES_FOLDER)
    rows = shard.read_images(left_out, images) if shard.read_images else shard.read(left_out)
    try:
        for number, (split, example) in enumerate(rows, 1):
            if split not in writers:
                writers[split] = _SplitWriter(stem.with_name(f"{stem.name}.{split}"))
            writers[split].add(example, spool.left_out)
            if number % _PROGRESS_ROWS == 0:
                count_rows(_PROGRESS_ROWS)
    finally:
        for writer in writers.values():
            writer.file.close()
    spool.splits = {split: writer.spooled_rows() for split, writer in writers.items()}
    return spool


class _SplitWriter:
    """Collects the rows of one split: some 16 bytes each in memory, the lines on the disk."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path.open("wb", buffering=1 << 20)
        # Arrays of 32 bits: as lists of Python integers the same rows would take some 140 bytes each.
        self._lengths, self._id_checksums = array("I"), array("I")
        self._answer_numbers, self._image_numbers = array("I"), array("I")
        self._answer_sets: dict[tuple[str, ...], int] = {}
        self._images: dict[str, int] = {}
        self._row_traits = array("B")
        self._other_columns: dict[str, None] = {}

    def add(self, example: Example, left_out: LeftOutRows) -> None:
        try:
            line = f"{example.line()}\n".encode()
        # JSON's \ud83d alone is half a surrogate pair: valid JSON, but no UTF-8.
        except UnicodeEncodeError:
            left_out.add(HALF_CHARACTER, f"id {example.id!r}")
            return
        if len(example.id) > MAX_ID_CHARS:
            row = message(
                "index.row-of-long-id", "id {start}… of {length:,} characters",
                start=example.id[:20], length=len(example.id),
            )  # fmt: skip
            left_out.add(ID_TOO_LONG, row)
            return
        self.file.write(line)
        self._lengths.append(len(line))
        self._id_checksums.append(zlib.crc32(example.id.encode()))
        answers = tuple(example.answers)
        # Few answers make up most rows: each combination is stored once, a row has its number.
        self._answer_numbers.append(self._answer_sets.setdefault(answers, len(self._answer_sets)))
        self._row_traits.append(row_traits(example))
        if example.columns:
            self._other_columns.update(dict.fromkeys(example.columns))
        self._image_numbers.append(self._images.setdefault(example.image, len(self._images)))

    def spooled_rows(self) -> SpooledRows:
        # Of the names only whether two are equal is asked later: 64 bits say so, across shards and processes.
        # A path may not be UTF-8 (`os.fsdecode`).
        names = (name.encode("utf-8", "surrogatepass") for name in self._images)
        hashes = [blake2b(name, digest_size=8).digest() for name in names]
        # Whole paths, and without a file's own name: two images in one folder have that folder in common.
        folders = {folder_on_disk(name) for name in self._images if name.startswith("/")}
        has_relative = any(not name.startswith("/") for name in self._images)
        return SpooledRows(
            self.path, np.array(self._lengths), np.array(self._id_checksums), np.array(self._answer_numbers),
            list(self._answer_sets), np.array(self._image_numbers), np.frombuffer(b"".join(hashes), np.uint64),
            np.array(self._row_traits), tuple(self._other_columns), os.path.commonpath(folders) if folders else "",
            has_relative=has_relative,
        )  # fmt: skip
