"""Images to try a server with: drawn scenes and Korean questions about them, as in `kovqa demo`."""

from __future__ import annotations

import functools
import io
import random
from dataclasses import dataclass

from kovqa_core.demo.questions import ask_questions
from kovqa_core.demo.scenes import make_scene, paint_scene

EXAMPLE_COUNT = 6


@dataclass(frozen=True)
class ExampleScene:
    """A PNG file, and a question about it."""

    image: bytes
    question: str


@functools.cache
def example_scenes() -> tuple[ExampleScene, ...]:
    """Drawn once, when they are first asked for; always the same, each with a question of another type."""
    scenes = []
    for number in range(EXAMPLE_COUNT):
        rng = random.Random(f"serve/{number}")
        scene = make_scene(rng)
        stream = io.BytesIO()
        paint_scene(scene).save(stream, "PNG")
        questions = ask_questions(scene, rng, heldout=True)
        scenes.append(ExampleScene(stream.getvalue(), questions[number % len(questions)].question))
    return tuple(scenes)
