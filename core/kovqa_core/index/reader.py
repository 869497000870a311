"""An index folder, and its examples without reading it all.

An index folder holds `train.jsonl`, `val.jsonl`, `test.jsonl` (one example a line, questions as text), a
`.offsets` file beside each (where its lines begin, so that any line of a file of any size is found at once),
`answers.txt` (the classes, from training rows only) and `index.json` (`report.py`).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.bounded_json import MAX_LINE_CHARS
from kovqa_core.data.answers import read_answers
from kovqa_core.data.example import Example, parse_example
from kovqa_core.data.image_names import is_inside, is_too_wide, outside_image_error, wide_folder_error
from kovqa_core.errors import DataError, no_names
from kovqa_core.files import open_file, real_path
from kovqa_core.index.not_an_index import no_index_error, no_split_file_error
from kovqa_core.index.report import REPORT_FILE, IndexReport, read_report
from kovqa_core.messages import message

if TYPE_CHECKING:
    import numpy as np  # at run time only where rows are read: 0.07 s that a plan saves

    from kovqa_core.settings.recipe import DataSettings

SPLIT_NAMES = ("train", "val", "test")
_CLOCK_SLACK_NS = 2_000_000_000  # file systems store times to the second or two


class IndexSplit(Sequence[Example]):
    """Examples of one `.jsonl` file; opening it reads only where its lines begin.

    Args:
        path: the file.
        images: the folder that none of its images may lead out of; None: no image of it is opened.
    """

    def __init__(self, path: Path, images: Path | None = None) -> None:
        self.path, self.images = path, images
        if not path.is_file():
            raise no_split_file_error(path)
        self._size = path.stat().st_size
        self._offsets = _line_offsets(path, path.with_suffix(".offsets"), self._size)
        self._map: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, number: int) -> Example:  # type: ignore[override]  # no slices of millions
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        # Negative numbers count from the end, as for any sequence.
        number %= len(self)
        # A map, not a file: rows are read in random order, by many processes, and the pages are shared between them.
        if self._map is None:
            with open_file(self.path) as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        # A line ends where the next begins; the last one ends with the file, with or without a line feed.
        start = int(self._offsets[number])
        end = int(self._offsets[number + 1]) if number + 1 < len(self) else self._size
        if end - start > MAX_LINE_CHARS:
            raise DataError(
                message(
                    "data.line-too-long", "{file}:{line}: a line of more than {most:,} characters",
                    file=self.path, line=number + 1, most=MAX_LINE_CHARS,
                ),
                message("data.not-an-index-line.hint", "write the index again: kovqa index"),
            )  # fmt: skip
        example = parse_example(self._map[start:end], f"{self.path}:{number + 1}")
        if self.images is not None:
            _require_inside(example, self.images, f"{self.path}:{number + 1}")
        return example

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_map": None}  # a map cannot be pickled: every loader process opens its own


def _require_inside(example: Example, images: Path, place: str) -> None:
    if is_inside(images, example.image):
        return
    hint = message(
        "index.outside-image.hint",
        "write the index again with kovqa index, which records where its images are; or name the folder that all of them "
        "lie below: --images DIR, for training --set data.images=DIR",
    )
    raise outside_image_error(place, example.image, images, hint)


class SplitSubset(Sequence[Example]):
    """Some rows of a split, by number."""

    def __init__(self, split: IndexSplit, numbers: np.ndarray) -> None:
        self.split, self.numbers = split, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> Example:  # type: ignore[override]
        return self.split[int(self.numbers[number])]


def filter_question_types(split: IndexSplit, question_types: Collection[str]) -> Sequence[Example]:
    """The rows of some question types; the whole split where none is named. Reads it once.

    Raises:
        DataError: no row is of such a type.
    """
    if not question_types or not len(split):
        return split
    import numpy as np

    present = [example.question_type for example in split]
    numbers = np.flatnonzero(np.isin(present, list(question_types)))
    if not len(numbers):
        raise DataError(
            message(
                "index.no-row-of-kind", "{file} has no row of kind {kinds}",
                file=split.path, kinds=", ".join(question_types),
            ),
            message(
                "index.no-row-of-kind.hint", "its kinds: {kinds}", kinds=", ".join(sorted(set(present))) or no_names()
            ),
        )  # fmt: skip
    return SplitSubset(split, numbers)


def _line_offsets(path: Path, offsets: Path, size: int) -> np.ndarray:
    """Where each line begins [rows]: from the `.offsets` file, or by looking where that is not to be trusted.

    People edit and copy `.jsonl` files. The offsets are used if they are not older than the lines, begin at
    0, and the last one is the beginning of a line after which no other begins: whatever was added or removed
    before it would have moved it.
    """
    import numpy as np

    if size == 0:
        return np.zeros(0, np.uint64)
    # Looked at through a map: a file of many GB is not read into memory for its line feeds.
    data = np.memmap(path, np.uint8, "r")
    if offsets.is_file() and offsets.stat().st_mtime_ns >= path.stat().st_mtime_ns - _CLOCK_SLACK_NS:
        length = offsets.stat().st_size
        if length and length % 8 == 0:
            stored = np.memmap(offsets, np.dtype("<u8"), "r")
            last = int(stored[-1])
            begins_a_line = last == 0 or (last < size and data[last - 1] == ord("\n"))
            if stored[0] == 0 and begins_a_line and ord("\n") not in data[last : size - 1]:
                return stored
    # The line after each line feed; after the last one there is none (`starts < size`).
    ends = np.flatnonzero(data == ord("\n")).astype(np.uint64) + np.uint64(1)
    starts = np.concatenate([np.zeros(1, np.uint64), ends])
    return starts[starts < size]


@dataclass(frozen=True)
class IndexFolder:
    """An index folder, the folder that its image paths start from, and its report."""

    folder: Path
    images: Path
    report: IndexReport

    def split(self, name: str) -> IndexSplit:
        """The examples of "train", "val" or "test"; one whose image leads out of the image folder is a DataError."""
        return IndexSplit(self.folder / f"{name}.jsonl", self.images)

    def check_first_images(self) -> None:
        """See that no split begins with an image outside the image folder: an index of absolute paths does.

        Reads a line of each, without numpy; the others are judged as they are read.

        Raises:
            DataError: one does.
        """
        for name in SPLIT_NAMES:
            path = self.folder / f"{name}.jsonl"
            if path.is_file():
                with path.open("rb") as stream:
                    line = stream.readline(MAX_LINE_CHARS)
                if line.strip():
                    _require_inside(parse_example(line, f"{path}:1"), self.images, f"{path}:1")

    def answers(self) -> list[str]:
        """The classes."""
        return read_answers(self.folder / "answers.txt")


def open_index(folder: Path, images: Path | None = None) -> IndexFolder:
    """Open an index folder.

    Args:
        folder: what `kovqa index` wrote.
        images: the image folder, when it has moved since.

    Raises:
        DataError: no index there, or no image folder; or one in which anything may lie, and only the index says so.
    """
    if not (folder / REPORT_FILE).is_file():
        raise no_index_error(folder)
    report = read_report(folder)
    # By the text, not `resolve`: an image folder that is a link stays the name that users know.
    image_folder = images or Path(os.path.normpath(real_path(folder) / report.image_folder))
    if not image_folder.is_dir():
        raise DataError(
            message(
                "index.images-moved", "the images of {folder} should be in {images}, which is not there",
                folder=folder, images=image_folder,
            ),
            message(
                "index.images-moved.hint",
                "name their folder: --images DIR, or for training --set data.images=DIR",
            ),
        )  # fmt: skip
    if images is None and is_too_wide(image_folder):
        raise wide_folder_error(
            folder / REPORT_FILE,
            image_folder,
            message(
                "index.image-folder-too-wide.hint",
                "if you know the index: --images {folder}, for training --set data.images={folder}",
                folder=image_folder,
            ),
        )
    return IndexFolder(folder, image_folder, report)


def open_training_index(data: DataSettings) -> IndexFolder:
    """Open the index that a recipe names, with its images where the recipe says; raises as `open_index`."""
    return open_index(Path(data.index or ""), Path(data.images) if data.images else None)


def is_index_file(table: Path) -> bool:
    """Is it a file of an index? Its image paths are exact then."""
    return (table.parent / REPORT_FILE).is_file()


def table_image_folder(table: Path) -> Path:
    """The folder that a table's image paths start from: as its index says, else the table's own."""
    if is_index_file(table):
        return open_index(table.parent).images
    return table.parent


def read_type_groups(split: Path) -> Mapping[str, Sequence[str]]:
    """Group -> its question types, as the `index.json` beside a split says; none for a user's own table."""
    return read_report(split.parent).question_type_groups if is_index_file(split) else {}
