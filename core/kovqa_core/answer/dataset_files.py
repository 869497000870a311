"""A data set's own file in place of a table to answer: which command reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kovqa_core.data.example import Example
from kovqa_core.data.tables import read_table
from kovqa_core.errors import DataError
from kovqa_core.messages import Message, message

_NIA_KEYS = frozenset(("IMAGE_NAME", "questions"))


def nested_file_hint(path: Path) -> Message | None:
    """What to do with a file whose rows hold their questions further inside; None: it is no such file."""
    try:
        _, record = next(read_table(path), (0, {}))
    except DataError:
        return None
    return _index_hint("nia") if record.keys() >= _NIA_KEYS else None


def require_named_images(path: Path, examples: Sequence[Example], image_folder: Path) -> None:
    """See that rows name images and do not only number them, as the question files of VQAv2 and AI-Hub 104 do.

    Args:
        path: the table.
        examples: its rows, with the images that were found.
        image_folder: where they were looked for.

    Raises:
        DataError: all images are numbers, and no file has such a name.
    """
    first = examples[0].image
    if all(example.image.isdecimal() for example in examples) and not (image_folder / first).exists():
        raise DataError(
            message(
                "answer.numbered-images",
                "{path}: its images are numbers ({image} and others), and no file in {folder} has such a name",
                path=path,
                image=first,
                folder=image_folder,
            ),
            _index_hint("SOURCE"),
        )


def _index_hint(source: str) -> Message:
    return message(
        "answer.index-first.hint",
        "if it is a data set's own file: kovqa index {source} --root DIR, then --input with the index's test.jsonl",
        source=source,
    )
