"""A few real inputs to hold an export against its model: rows of the index it was trained on, else drawn scenes."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from kovqa_core.data.example import AskedExample, Example
from kovqa_core.data.image_io import open_image
from kovqa_core.demo.captions import scene_captions
from kovqa_core.demo.scenes import make_scene, paint_scene
from kovqa_core.errors import KovqaError
from kovqa_core.index.reader import open_training_index
from kovqa_core.messages import message
from kovqa_core.settings import run

EXAMPLES = 4
_DRAWN_QUESTIONS = (
    "그림에 도형이 모두 몇 개 있나요?", "가장 큰 도형은 무슨 색인가요?", "What is shown in the picture?",
    "빨간 원은 어디에 있나요?",
)  # fmt: skip


@dataclass(frozen=True)
class CheckExamples:
    """Examples whose images are in memory, as PNG; and what they are, for people."""

    examples: tuple[AskedExample, ...]
    source: str


def find_check_examples(step: Path, *, as_stored: bool) -> CheckExamples:
    """Rows of the validation split of a step's index where it is still there, else scenes drawn for the purpose.

    Args:
        step: the checkpoint folder.
        as_stored: how its model reads images, see `open_image`.
    """
    run_file = step.parent / run.RUN_FILE
    try:
        data = run.read_run(run_file).recipe.data if run_file.is_file() else None
        if data is not None and data.index:
            index = open_training_index(data)
            files = (index.folder / f"{name}.jsonl" for name in ("val", "test", "train"))
            name = next(file.stem for file in files if file.is_file() and file.stat().st_size)
            rows = tuple(islice(_readable(index.split(name), index.images, as_stored=as_stored), EXAMPLES))
            if rows:
                return CheckExamples(
                    rows,
                    message(
                        "export.rows-of-index", "{count} rows of {split} of {index}",
                        count=len(rows), split=name, index=data.index,
                    ),
                )  # fmt: skip
    except (KovqaError, StopIteration):
        pass  # moved, or written anew: any image will do
    scenes = [make_scene(random.Random(number)) for number in range(EXAMPLES)]
    drawn = tuple(
        AskedExample("", "", question, captions=scene_captions(scene)[:1], source=_png(paint_scene(scene)))
        for scene, question in zip(scenes, _DRAWN_QUESTIONS, strict=True)
    )
    return CheckExamples(drawn, message("export.drawn-scenes", "{count} drawn scenes", count=len(drawn)))


def _readable(rows: Sequence[Example], images: Path, *, as_stored: bool) -> Iterator[AskedExample]:
    """Spread over the split; rows that cannot be read are passed over."""
    for number in range(0, len(rows), max(1, len(rows) // EXAMPLES)):
        try:
            row = rows[number]
            image = open_image(images / row.image, as_stored=as_stored)
        except KovqaError:
            continue
        yield AskedExample(
            "", "", row.question, captions=row.captions, choices=row.choices, context=row.context,
            source=_png(image),
        )  # fmt: skip


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
