"""Every image of an index opened once, on all cores: rows whose image cannot be read are left out.

The images are named by a file in the index's partial folder, one a line, and each process is told which lines are
its own: however many images there are, only numbers are in memory.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kovqa_core.bounded_json import parse_json
from kovqa_core.data.image_io import open_image
from kovqa_core.errors import DataError
from kovqa_core.index.left_out import IMAGE_UNREADABLE, LeftOutRows
from kovqa_core.index.repeated_ids import RowMasks
from kovqa_core.index.report import ImageCheck
from kovqa_core.index.spool import SpooledRows
from kovqa_core.messages import Message, join_messages, message
from kovqa_core.process_pool import add_to_count, parallel_map, usable_cpu_count
from kovqa_core.progress import OnProgress, Progress, ignore_progress

_BLOCK_IMAGES = 128  # that a process checks at once
_PARALLEL_MIN_IMAGES = 512  # from so many, several processes are worth their start
_MAX_PROBLEMS = 1000  # kept in words; more are only counted


@dataclass(frozen=True)
class _Unreadable:
    """Images that cannot be read: their numbers [images], and of the first of them what is wrong."""

    numbers: np.ndarray
    problems: Mapping[int, str]


def drop_unreadable_images(
    splits: Mapping[str, RowMasks],
    image_folder: Path,
    scratch: Path,
    left_out: LeftOutRows,
    on_progress: OnProgress = ignore_progress,
) -> tuple[dict[str, RowMasks], ImageCheck]:
    """Open each different image of the kept rows; the rows that are left, and how many images that were.

    Args:
        splits: rows, each with a mask of those kept.
        image_folder: that their image paths start from.
        scratch: folder for the list of images.
        left_out: gets the rows whose image cannot be read.
        on_progress: called with the images opened so far.

    Raises:
        MachineError: see `parallel_map`.
    """
    began = time.monotonic()
    names_file = scratch / "images-to-check"
    hashes, starts = _write_image_names(splits, names_file)
    unreadable = _find_unreadable(names_file, starts, len(hashes), image_folder, on_progress)
    names_file.unlink()
    problems = {int(hashes[number]): problem for number, problem in unreadable.problems.items()}
    bad_hashes = hashes[unreadable.numbers]
    kept = {
        split: [(shard, _drop_rows(shard, mask, bad_hashes, problems, left_out)) for shard, mask in masks]
        for split, masks in splits.items()
    }
    return kept, ImageCheck(len(hashes), len(bad_hashes), time.monotonic() - began)


def _write_image_names(splits: Mapping[str, RowMasks], file: Path) -> tuple[np.ndarray, list[int]]:
    """Write the name of each different image; their hashes in the file's order, and where each block begins."""
    shards = [(shard, _first_rows(shard, mask)) for masks in splits.values() for shard, mask in masks]
    row_hashes = [shard.image_hashes[shard.image_numbers[rows]] for shard, rows in shards]
    hashes = np.concatenate(row_hashes) if row_hashes else np.zeros(0, np.uint64)
    is_first = np.zeros(len(hashes), bool)
    is_first[np.unique(hashes, return_index=True)[1]] = True
    ends = np.cumsum([len(each) for each in row_hashes])
    starts, place, written = list[int](), 0, itertools.count()
    with file.open("wb") as stream:
        for (shard, rows), end in zip(shards, ends, strict=True):
            mask = np.zeros(len(shard.image_numbers), bool)
            mask[rows[is_first[end - len(rows) : end]]] = True
            for example in shard.examples(mask):
                if next(written) % _BLOCK_IMAGES == 0:
                    starts.append(place)
                place += stream.write(json.dumps(example.image).encode() + b"\n")
    return hashes[is_first], starts


def _first_rows(shard: SpooledRows, mask: np.ndarray) -> np.ndarray:
    """Of the kept rows, the first that shows each image [images], in the shard's order."""
    rows = np.flatnonzero(mask)
    return rows[np.sort(np.unique(shard.image_numbers[rows], return_index=True)[1])]


def _find_unreadable(
    names_file: Path, starts: list[int], images: int, image_folder: Path, on_progress: OnProgress
) -> _Unreadable:
    stage = message("index.checking-images", "opening images")
    blocks = [(names_file, start, image_folder) for start in starts]
    if images >= _PARALLEL_MIN_IMAGES and usable_cpu_count() > 1:
        found = parallel_map(
            _check_and_count_block, blocks, stage=stage, unit="images", on_progress=on_progress
        )
    else:
        opened = itertools.count(1)

        def count_image() -> None:
            on_progress(Progress(stage, next(opened), images, unit="images"))

        found = [_check_block(*block, count_image) for block in blocks]
    numbers, problems = list[int](), dict[int, str]()
    for block, faults in enumerate(found):
        for line, problem in faults:
            numbers.append(block * _BLOCK_IMAGES + line)
            if len(problems) < _MAX_PROBLEMS:
                problems[numbers[-1]] = problem
    return _Unreadable(np.array(numbers, np.int64), problems)


def _check_and_count_block(names_file: Path, start: int, image_folder: Path) -> list[tuple[int, str]]:
    return _check_block(names_file, start, image_folder, lambda: add_to_count(1))


def _check_block(
    names_file: Path, start: int, image_folder: Path, count_image: Callable[[], None]
) -> list[tuple[int, str]]:
    """(line of the block, what is wrong) for each image of a block that cannot be read."""
    faults = []
    for line, name in enumerate(_block_names(names_file, start)):
        try:
            # A JPEG at an eighth of its size: all its bytes are decoded, which finds what is missing, but no pixels
            # are made of them that nobody looks at.
            open_image(image_folder / name, side=1)
        except DataError as error:
            faults.append((line, _named_below(error.message, image_folder)))
        count_image()
    return faults


def _named_below(problem: str, image_folder: Path) -> str:
    """What is wrong with an image, which is named as below its folder."""
    prefix = f"{image_folder}/"
    text = problem.replace(prefix, "", 1)
    if not isinstance(problem, Message):
        return text
    shorter = Message(text)
    shorter.key = problem.key
    shorter.fields = {
        name: str(value).replace(prefix, "", 1) if isinstance(value, Path) else value
        for name, value in problem.fields.items()
    }
    return shorter


def _block_names(names_file: Path, start: int) -> Iterator[str]:
    with names_file.open("rb") as stream:
        stream.seek(start)
        for line in itertools.islice(stream, _BLOCK_IMAGES):
            yield parse_json(line)


def _drop_rows(
    shard: SpooledRows,
    mask: np.ndarray,
    bad_hashes: np.ndarray,
    problems: Mapping[int, str],
    left_out: LeftOutRows,
) -> np.ndarray:
    """The mask without the rows whose image is unreadable; these are counted, and the first of them listed."""
    dropped = mask & np.isin(shard.image_hashes, bad_hashes)[shard.image_numbers]
    left_out.counts[IMAGE_UNREADABLE] += int(dropped.sum())
    first = np.flatnonzero(dropped)[: LeftOutRows.MAX_LISTED]
    of_first = np.zeros(len(mask), bool)
    of_first[first] = True
    for row, example in zip(first, shard.examples(of_first), strict=True):
        problem = problems.get(int(shard.image_hashes[shard.image_numbers[row]]), example.image)
        left_out.list_row(IMAGE_UNREADABLE, join_messages(": ", [f"id {example.id}", problem]))
    return mask & ~dropped
