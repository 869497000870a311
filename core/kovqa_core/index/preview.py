"""A few examples of an index, to look at."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.example import Example
from kovqa_core.index.reader import open_index


@dataclass(frozen=True)
class PreviewExample:
    """An example, its split, and the path of its image."""

    split: str
    example: Example
    image_path: Path


def preview_index(folder: Path, per_split: int, images: Path | None = None) -> list[PreviewExample]:
    """Some examples of every split of an index, the same ones every time.

    Args:
        folder: index folder.
        per_split: how many of each split; fewer where it has fewer.
        images: the image folder, when it has moved.

    Raises:
        DataError: no index there.
    """
    index = open_index(folder, images)
    preview = []
    for name in index.report.counts.rows:
        split = index.split(name)
        numbers = sorted(random.Random(0).sample(range(len(split)), min(per_split, len(split))))
        examples = [split[number] for number in numbers]
        preview += [PreviewExample(name, example, index.images / example.image) for example in examples]
    return preview
