"""What the originals' index files have in common: rows in ASCII JSON, classes by first occurrence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from kovqa_core.data.image_names import leads_outside
from kovqa_core.errors import DataError
from kovqa_core.messages import message
from kovqa_core.messages.readable_name import readable_name

EncodeText = Callable[[str], list[int]]  # token ids of a text, without `<s>` and `</s>`
UpstreamRow = dict[str, object]  # column -> JSON value


def write_json_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object per line.

    Raises:
        DataError: an `image_path` leads out of the image folder.
    """
    with path.open("w", encoding="ascii") as stream:
        for row in rows:
            require_inside(str(row.get("image_path", "")))
            stream.write(json.dumps(row) + "\n")


def require_inside(image: str) -> None:
    """See that the original program, which opens whatever its files name, is led nowhere else.

    Args:
        image: its path below the image folder, as raw data have it.

    Raises:
        DataError: it leads out of the folder.
    """
    if leads_outside(image):
        raise DataError(
            message(
                "index.upstream-outside",
                "image {name} lies outside the image folder",
                name=readable_name(image),
            ),
            message(
                "index.upstream-outside.hint",
                "mend the raw data: kovqa index without --as-upstream names its rows",
            ),
        )


def label_by_first_seen(answers: Iterable[str], min_count: int) -> dict[str, int]:
    """Answers seen often enough -> label, in the order they were first seen in."""
    frequent = (answer for answer, n in Counter(answers).items() if n >= min_count)
    return {answer: label for label, answer in enumerate(frequent)}


def write_answer2label(folder: Path, labels: Mapping[str, int]) -> None:
    """Write `answer2label.txt`."""
    rows = ({"answer": answer, "label": label} for answer, label in labels.items())
    write_json_rows(folder / "answer2label.txt", rows)
