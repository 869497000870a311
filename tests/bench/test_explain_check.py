"""The check of explain's maps tells a score that knows where things are from scores that do not."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kovqa_core.demo.scenes import SceneObject
from kovqa_core.explain.occlusion import AskedImage
from PIL import Image

from tests.explain.test_occlusion import KnownScorer

SIDE = 64  # of the scenes here: four times smaller than drawn
BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def check() -> Any:
    sys.path.insert(0, str(BENCH))
    try:
        import explain_check

        yield explain_check
    finally:
        sys.path.remove(str(BENCH))


def box_of(thing: SceneObject) -> tuple[slice, slice]:
    """Rows and columns."""
    return tuple(
        slice(max(0, int((middle - thing.radius) * SIDE / 256)), int((middle + thing.radius) * SIDE / 256))
        for middle in (thing.y, thing.x)
    )  # type: ignore[return-value]


def run_check(check: Any, score: Callable[[np.ndarray, np.ndarray, Any], float]) -> tuple[bool, bool]:
    """Do a and b hold of 20 scenes; `score` is a function of pixels, the uncovered ones, and the question."""
    rng, checks = np.random.default_rng(0), []
    for question in islice(check.draw_questions("vqa", 1), 20):
        pixels = np.asarray(Image.open(io.BytesIO(question.image)).resize((SIDE, SIDE)))

        def of_pixels(changed: np.ndarray, pixels: np.ndarray = pixels, question: Any = question) -> float:
            return score(changed, pixels, question)

        scorer: Any = KnownScorer(of_pixels)
        asked = AskedImage(scorer, pixels, pixels, of_pixels(pixels))
        checks.append(check.check_map(asked, question, "occlusion", rng))
    held: tuple[bool, bool] = check.holds(checks)
    return held


def changed_part(changed: np.ndarray, pixels: np.ndarray, things: Sequence[SceneObject]) -> float:
    """How much of things is no longer to be seen, 0 to 1."""
    parts = [(np.abs(changed[b].astype(int) - pixels[b]) > 8).mean() for b in map(box_of, things)]
    return float(np.mean(parts))


def test_a_score_that_looks_at_the_asked_thing_passes(check: Any) -> None:
    assert run_check(check, lambda changed, pixels, q: 8 - 12 * changed_part(changed, pixels, q.asked)) == (
        True,
        True,
    )


def test_a_score_that_looks_at_any_thing_fails(check: Any) -> None:
    """What stands out is no proof of where an answer comes from: the other things are there, too."""

    def score(changed: np.ndarray, pixels: np.ndarray, question: Any) -> float:
        return 8 - 12 * changed_part(changed, pixels, [*question.asked, *question.others])

    points, _ = run_check(check, score)
    assert not points


def test_a_score_that_looks_at_the_centre_fails(check: Any) -> None:
    def score(changed: np.ndarray, pixels: np.ndarray, question: Any) -> float:
        middle = (slice(24, 40), slice(24, 40))
        return 8 - 12 * float((np.abs(changed[middle].astype(int) - pixels[middle]) > 0).mean())

    points, _ = run_check(check, score)
    assert not points


def test_a_score_that_hardly_moves_claims_nothing(check: Any) -> None:
    def score(changed: np.ndarray, pixels: np.ndarray, question: Any) -> float:
        return 8 - 0.5 * changed_part(changed, pixels, question.asked)

    assert run_check(check, score) == (False, False)


def test_shuffled_weights_keep_their_numbers(check: Any) -> None:
    import torch

    layer = torch.nn.Linear(16, 16)
    before = layer.weight.detach().clone()
    check.shuffle_weights(layer, 0)
    assert not torch.equal(layer.weight, before)
    assert torch.equal(layer.weight.flatten().sort().values, before.flatten().sort().values)
