"""Samples of a webdataset as rows: the files of a tar that share a name up to its first dot (docs/sources/datasets.md, D34).

    사진/0001.jpg  사진/0001.json  사진/0001.question.txt   ->   {"image": "shard.tar/사진/0001.jpg", …, "question": "…"}

Of a plain tar the images stay where they are (`data/tar_images.py`); of a gzip file, which can be read from its beginning
only, they are unpacked as those of parquet are. One sample is in memory at a time.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kovqa_core.data.image_formats import IMAGE_SUFFIXES
from kovqa_core.data.image_names import leads_outside
from kovqa_core.data.json_values import JsonRecord, JsonValue, decode_json_line
from kovqa_core.data.tables.embedded_images import ImageNames, SaveImage
from kovqa_core.data.tables.tar_files import (
    is_packed_tar,
    iter_tar_files,
    read_text_member,
    repeated_names,
)
from kovqa_core.data.tar_images import TAR_SUFFIX, member_name
from kovqa_core.errors import DataError
from kovqa_core.messages import Message, message

KEY_COLUMN = "__key__"  # what files of a sample share, as webdataset and Hugging Face call it
PROBLEM_COLUMN = "__problem__"  # why a sample is left out
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TEXT_SUFFIXES = ("txt", "text", "cls")
_TEXT_COLUMNS = (
    "question",
    "answer",
    "caption",
    "choices",
    "context",
    "hint",
    "kind",
    "split",
    "id",
    "label",
    "unknown",
)
_NOTED_SAMPLES = 64  # that are looked at for what a table's notes say


@dataclass
class _Sample:
    """The files of one sample, in their order."""

    key: str
    images: dict[str, str] = field(default_factory=dict)  # extension -> name in rows
    values: JsonRecord = field(default_factory=dict)
    rows: list[JsonValue] | None = None  # of a JSON list
    passed_over: list[str] = field(default_factory=list)
    extensions: set[str] = field(default_factory=set)
    problem: str = ""


def read_webdataset_rows(
    path: Path,
    image_folder: Path | None = None,
    save_image: SaveImage | None = None,
    names: ImageNames | None = None,
    image_columns: Sequence[str] = ("image",),
    named: Collection[str] = (),
    *,
    needs_text: bool,
    as_text: bool,
) -> Iterator[tuple[int, JsonValue]]:
    """Rows with their numbers from 1; `__key__` is what the files of each share, `__problem__` why it is left out.

    A JSON file is the row's columns, or a list of rows about the image; any other text is a column of its file's name.

    Args:
        path: the tar.
        image_folder: that names of images start from; None: the tar's own.
        save_image: called with the name and the bytes of every image of a gzip file.
        names: those of the files before this one.
        image_columns: names of the column of the image, the first of which it gets; or the extension of one.
        named: all columns that are asked for.
        needs_text: is a sample without any text no row?
        as_text: numbers as text.

    Raises:
        DataError: a damaged tar, or one without samples; broken JSON.
    """
    number, seen = 0, set[int]()
    for sample in _iter_samples(
        path, image_folder or path.parent, save_image, names or ImageNames(), as_text=as_text
    ):
        if (checksum := hash(sample.key)) in seen:
            sample.problem = message(
                "data.sample-apart", "its files do not lie side by side: tar --sort=name writes them so"
            )
        if needs_text and not sample.values and sample.rows is None:
            sample.problem = sample.problem or message("data.sample-no-text", "it has no text")
        seen.add(checksum)
        for row in _rows_of(sample, image_columns, named):
            number += 1
            yield number, row
    if not number:
        raise DataError(
            message(
                "data.no-samples", "{file} is a tar archive without images and texts of one name", file=path
            ),
            message("data.no-samples.hint", "unpack it, and name a table that was in it"),
        )


def webdataset_notes(path: Path) -> tuple[Message, ...]:
    """What is decided about a webdataset that its samples do not say, by the first of them."""
    apart: dict[str, None] = {}
    captioned, several = False, dict[str, None]()
    samples = _iter_samples(path, path.parent, None, ImageNames(), as_text=True)
    for _, sample in zip(range(_NOTED_SAMPLES), samples, strict=False):
        apart |= dict.fromkeys(sample.passed_over)
        captioned |= _is_captioned(sample.values)
        if len(sample.images) > 1:
            several |= dict.fromkeys(sample.images)
    notes = []
    if captioned:
        notes.append(message("data.txt-is-caption", "what stands in .txt files is taken for the caption"))
    if several:
        notes.append(
            message(
                "data.sample-images", "samples have several images ({names}): --column image={first} takes another",
                names=", ".join(several), first=list(several)[-1],
            )
        )  # fmt: skip
    if apart:
        notes.append(
            message("data.sample-files-unread", "files that are not read: {names}", names=", ".join(apart))
        )
    return tuple(notes)


# ------------------------------------------------------------------------------------ samples


def _iter_samples(
    path: Path, image_folder: Path, save_image: SaveImage | None, names: ImageNames, *, as_text: bool
) -> Iterator[_Sample]:
    sample = None
    is_packed = is_packed_tar(path)
    prefix = "" if is_packed else _image_prefix(path, image_folder)
    # Read by its name later on, an image of two of one name would be the other sample's.
    repeated = frozenset() if is_packed else repeated_names(path)
    for member, read in iter_tar_files(path):
        name = member_name(member.name)
        found = _NAME.fullmatch(name)
        if found is None or name.rpartition("/")[2].startswith("__"):
            continue  # a folder's own files, and what webdataset keeps for itself
        key, extension = found[1], found[2].lower()
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = _Sample(key)
        place = f"{path}:{name}"
        if member.strange_type is not None:
            sample.problem = message(
                "data.sample-link", "{name} is {type}", name=name, type=member.strange_type
            )
        elif leads_outside(name) or _CONTROL.search(name):
            sample.problem = message("data.sample-name", "{name} is a name that leads elsewhere", name=name)
        elif extension in sample.extensions or name in repeated:
            sample.problem = message("data.sample-twice", "{name} is there twice", name=name)
        elif _is_image(extension):
            if prefix:
                sample.images[extension] = prefix + name
            else:
                from kovqa_core.data.image_memory import image_memory_limit  # which loads Pillow

                data = read(image_memory_limit())
                sample.images[extension] = names.choose(name, data)
                if save_image:
                    save_image(sample.images[extension], data)
        else:
            _add_values(sample, extension, partial(read_text_member, read, place), place, as_text=as_text)
        sample.extensions.add(extension)
    if sample is not None:
        yield sample


def _image_prefix(path: Path, image_folder: Path) -> str:
    """What the name of an image in a plain tar begins with: the tar's path."""
    if path.suffix.lower() != TAR_SUFFIX:
        raise DataError(
            message(
                "data.tar-name", "{file} is a tar archive, and its name does not end with .tar", file=path
            ),
            message("data.tar-name.hint", "rename it: its images are read where they lie, by the tar's name"),
        )
    with contextlib.suppress(ValueError):
        return f"{path.relative_to(image_folder).as_posix()}/"
    return f"{os.path.abspath(path)}/"  # noqa: PTH100  # a link keeps its name


def _add_values(
    sample: _Sample, extension: str, read_text: Callable[[], str], place: str, *, as_text: bool
) -> None:
    """Add what a file of text says to its sample."""
    column, _, suffix = extension.rpartition(".")
    if suffix == "json":
        try:
            value = decode_json_line(read_text(), as_text=as_text)
        except ValueError as error:
            raise DataError(
                message(
                    "data.sample-json", "{place}: not valid JSON ({problem})", place=place, problem=error
                ),
                message("data.broken-json.hint", "fetch or unpack it again"),
            ) from None
        if column:
            sample.values[column] = value
        elif isinstance(value, dict):
            sample.values |= value
        elif isinstance(value, list):
            sample.rows = value
        else:
            sample.problem = _no_object()
    elif suffix in _TEXT_SUFFIXES or (not column and suffix in _TEXT_COLUMNS):
        sample.values[column or suffix] = read_text().removesuffix("\n").removesuffix("\r")
    else:
        sample.passed_over.append(f".{extension}")


def _rows_of(sample: _Sample, image_columns: Sequence[str], named: Collection[str]) -> Iterator[JsonRecord]:
    """The rows of a sample: one, or those of a list; of a sample that is left out one that says why."""
    image, problem = _sample_image(sample, image_columns)
    column = image_columns[0]
    base: JsonRecord = {**sample.values, KEY_COLUMN: sample.key}
    if _is_captioned(base) and "txt" not in named:
        base["caption"] = base.pop("txt")
    rows = [{}] if sample.rows is None else sample.rows
    for number, row in enumerate(rows, 1):
        values = row if isinstance(row, dict) else {}
        key = sample.key if len(rows) == 1 else f"{sample.key}/{number}"
        whole = {
            **base,
            **values,
            KEY_COLUMN: key,
            column: image or values.get(column) or base.get(column) or "",
        }
        own_problem = problem or ("" if isinstance(row, dict) else _no_object())
        if not own_problem and not whole[column]:
            own_problem = message("data.sample-no-image", "it has no image")
        yield {**whole, PROBLEM_COLUMN: own_problem} if own_problem else whole


def _sample_image(sample: _Sample, image_columns: Sequence[str]) -> tuple[str, str]:
    """The image that a sample is about, "" where it has none; and what is wrong with the sample."""
    if sample.problem:
        return "", sample.problem
    named = [name for name in image_columns if _is_image(name)]  # --column image=mask.png
    if named:
        image = next((sample.images[name] for name in named if name in sample.images), "")
        problem = "" if image else message("data.sample-lacks", "it has no {name}", name=named[0])
        return image, problem
    plain = [name for extension, name in sample.images.items() if "." not in extension]
    candidates = list(sample.images.values()) if len(sample.images) == 1 else plain
    if sample.images and len(candidates) != 1:
        names = ", ".join(sample.images)
        return "", message("data.sample-several-images", "it has several images: {names}", names=names)
    return next(iter(candidates), ""), ""


def _is_image(extension: str) -> bool:
    return f".{extension.rpartition('.')[2]}" in IMAGE_SUFFIXES


def several_images(count: int) -> Message:
    """Why a row with several images is left out."""
    return message("data.several-images", "it has {count} images, and one is read", count=count)


def _no_object() -> Message:
    return message("data.sample-no-object", "its JSON is not an object")


def _is_captioned(values: JsonRecord) -> bool:
    """Is a text without a name all that is said, as image2dataset writes captions?"""
    return "txt" in values and not {
        "question",
        "caption",
        "captions",
        "conversations",
        "messages",
    }.intersection(values)
