"""The tables that a published benchmark consists of, and the images in them.

Parquet has an image as Hugging Face's struct of `bytes` and `path`, or as base64 as a TSV and a CSV do; JSON lines have the
name of a file.
(docs/sources/benchmarks.md, K1 and K2)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kovqa_core.data.folder_walk import walk_files
from kovqa_core.data.json_values import JsonRecord
from kovqa_core.data.tables import holds_images, read_table, record_text
from kovqa_core.data.tables.embedded_images import ImageNames, image_suffix, image_writer
from kovqa_core.errors import DataError
from kovqa_core.index.find_image import find_image, row_with_problem
from kovqa_core.index.left_out import IMAGE_NOT_NAMED, IMAGE_UNREADABLE, LeftOutRows
from kovqa_core.messages import message

IMAGE_COLUMNS = ("image", "image_path")
# Of a folder that has the same rows in several formats, as NCSOFT's repositories do, the first is read.
_SUFFIXES = (".parquet", ".tsv", ".csv", ".jsonl")
_MAX_NAME_CHARS = 255  # of a file's name: a longer text is an image itself


@dataclass(frozen=True)
class BenchmarkRecord:
    """One row of a benchmark's files.

    Attributes:
        place: FILE:LINE, for messages.
        cells: column -> value; numbers as the text they are written with.
        image: its path below the image folder.
    """

    place: str
    cells: JsonRecord
    image: str


@dataclass
class _SeenImages:
    """Images of the files read so far.

    Attributes:
        names: those taken.
        by_index: of rows with an image of their own in a TSV; another row may name it by this.
    """

    names: ImageNames = field(default_factory=ImageNames)
    by_index: dict[str, str] = field(default_factory=dict)


def find_benchmark_files(name: str, root: Path) -> list[Path]:
    """The tables of a benchmark, sorted by their paths.

    Args:
        name: of the benchmark, for the error.
        root: one of its files, or the folder that it was downloaded into.

    Raises:
        DataError: there is none.
    """
    if root.is_file():
        return [root]
    paths = sorted(walk_files(root)) if root.is_dir() else []
    for suffix in _SUFFIXES:
        if files := [root / path for path in paths if path.lower().endswith(suffix)]:
            return files
    raise DataError(
        message(
            "index.no-benchmark-file", "no {suffixes} file below {root}", suffixes=", ".join(_SUFFIXES), root=root
        ),
        message("index.no-benchmark-file.hint", "fetch it: kovqa download {name}", name=name),
    )  # fmt: skip


def have_own_images(file: Path) -> bool:
    """Do the images lie in the table itself?"""
    return file.suffix.lower() != ".jsonl"


def read_benchmark_records(
    files: Sequence[Path],
    required: Mapping[str, Sequence[str]],
    id_columns: Sequence[str],
    images: Path,
    left_out: LeftOutRows,
    own_images: Path | None,
) -> Iterator[BenchmarkRecord]:
    """Rows of a benchmark's files with an image each.

    Args:
        files: its tables.
        required: what the layout must have -> names of columns for it.
        id_columns: names of the id's column.
        images: folder that names of images start from.
        left_out: collects the rows without a usable image.
        own_images: folder to write images of the tables into; None: none is written.

    Raises:
        DataError: a file that cannot be read, or whose columns are not those of the layout.
    """
    seen = _SeenImages()
    save = image_writer(own_images) if own_images else None
    hint = message(
        "index.unknown-benchmark-layout.hint",
        "this is not the published layout (docs/sources/benchmarks.md); any other table: kovqa index table --root FILE",
    )
    for file in files:
        is_embedded = holds_images(file, IMAGE_COLUMNS)
        rows = read_table(
            file, {**required, "image": IMAGE_COLUMNS}, hint, save_image=save, image_names=seen.names
        )
        for line, cells in rows:
            place = f"{file}:{line}"
            column = next(name for name in IMAGE_COLUMNS if name in cells)
            cell, problem = record_text(cells, column, place), ""
            if len(cell) > _MAX_NAME_CHARS and not is_embedded:
                cell, problem = _save_base64(cell, seen.names, own_images), IMAGE_UNREADABLE
                seen.by_index[_first_text(cells, id_columns, place)] = cell
            if not cell:
                left_out.add(problem or IMAGE_NOT_NAMED, place)
                continue
            # VLMEvalKit's TSV have an image once, and its row's index in the other rows.
            cell = seen.by_index.get(cell, cell)
            found = find_image(own_images or images, cell)
            if found.path is None:
                left_out.add(found.reason, row_with_problem(place, found))
            else:
                yield BenchmarkRecord(place, cells, found.path)


def _first_text(cells: JsonRecord, columns: Sequence[str], place: str) -> str:
    return next((record_text(cells, name, place) for name in columns if name in cells), "")


def _save_base64(text: str, names: ImageNames, folder: Path | None) -> str:
    """The name under which an image in base64 is written; "" if it is not one."""
    try:
        data = base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text)
    except (binascii.Error, ValueError):
        return ""
    if not image_suffix(data):
        return ""
    name = names.choose(None, data)
    if folder:
        image_writer(folder)(name, data)
    return name
