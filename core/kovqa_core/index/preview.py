"""A few examples of an index, to be looked at."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

from kovqa_core.data.example import Example
from kovqa_core.index.reader import open_index


class PreviewExample(NamedTuple):
    """An example, the split it belongs to and where its picture lies."""

    split: str
    example: Example
    picture: Path


def preview_index(folder: Path, number: int, images: Path | None = None) -> list[PreviewExample]:
    """Some examples of every split of an index, the same ones every time.

    Args:
        folder: index folder.
        number: how many of each split; fewer where it has fewer.
        images: the pictures' folder, when it moved.

    Raises:
        DataError: no index there.
    """
    index = open_index(folder, images)
    found = []
    for name in index.about["rows"]:
        split = index.split(name)
        places = sorted(random.Random(0).sample(range(len(split)), min(number, len(split))))
        found += [PreviewExample(name, split[place], index.images / split[place].image) for place in places]
    return found
