"""Places are covered, and what an answer loses says what they are worth: with scores whose reasons are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kovqa_core.data.example import Answer
from kovqa_core.explain import covers
from kovqa_core.explain.draw_heat import draw_overlay
from kovqa_core.explain.explanation import Explanation
from kovqa_core.explain.occlusion import (
    AskedImage,
    find_disagreement,
    find_flatness,
    mark_hottest,
    occlusion_heat,
)
from kovqa_core.models.explain_functions import ExplainFunctions, sequence_log_odds, token_log_odds

Score = Callable[[np.ndarray], float]
BOX = (slice(60, 90), slice(16, 40))  # rows and columns of what the answer comes from
FUNCTIONS: ExplainFunctions[Any, Any] = ExplainFunctions(
    lambda *_: pytest.fail("no model here"),
    item_pixels=lambda item: item,
    with_pixels=lambda item, pixels: pixels,
    as_stored=lambda _: False,
)


class KnownScorer:
    """As an `AnswerScorer`, of pixels instead of a model's items."""

    def __init__(self, score: Score) -> None:
        self.score, self.functions, self.asked = score, FUNCTIONS, 0

    def score_items(self, items: Sequence[Callable[[], np.ndarray]]) -> np.ndarray:
        self.asked += len(items)
        return np.array([self.score(make()) for make in items])


def ask(score: Score) -> AskedImage:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 80, 3), np.uint8)
    pixels[BOX] = (250, 20, 20)
    scorer: Any = KnownScorer(score)
    return AskedImage(scorer, pixels, pixels, score(pixels))


def redness(pixels: np.ndarray) -> float:
    """High where the box is red, whatever is elsewhere."""
    box = pixels[BOX].astype(float)
    return float((box[..., 0] - box[..., 1]).mean() / 20)


def test_the_map_shows_what_the_answer_comes_from() -> None:
    asked = ask(redness)
    heat, largest = occlusion_heat(asked)
    marked = covers.cell_pixels(mark_hottest(heat), 120, 80)
    assert marked[BOX].mean() > 0.8
    assert heat.max() == 1
    assert (covers.cell_pixels(heat, 120, 80)[:30] == 0).all()  # far from it
    assert largest > 5
    assert find_flatness(largest) is None
    assert find_disagreement(asked, heat) is None  # a blur takes it away as well
    assert np.array_equal(occlusion_heat(asked)[0], heat)
    assert asked.scorer.asked == 2 * 113 + 9  # type: ignore[attr-defined]  # bounded: as the documentation says


def test_what_speaks_against_the_answer_is_not_shown_as_its_reason() -> None:
    heat, largest = occlusion_heat(ask(lambda pixels: -redness(pixels)))
    assert heat.max() == 0
    assert largest == 0


def test_a_flat_map_is_called_flat_and_not_drawn() -> None:
    asked = ask(lambda pixels: float(pixels.mean() / 1e4))
    heat, largest = occlusion_heat(asked)
    doubt = find_flatness(largest)
    assert doubt is not None
    assert doubt.key == "explain.flat"
    explanation = Explanation(Answer("예", 0.5), "occlusion", heat, largest, [], doubt)
    assert draw_overlay(explanation, 80, 120).getextrema()[3] == (0, 0)
    assert draw_overlay(replace(explanation, doubt=None), 80, 120).getextrema()[3][1] > 150


def test_a_map_that_only_its_cover_made_is_not_confirmed() -> None:
    def shocked_by_the_cover(pixels: np.ndarray) -> float:
        """As networks may be: it is the cover's colour that lowers the score, and only at the top."""
        colour = covers.mean_colour_cover(ask(redness).pixels)[0, 0]
        return 5 - 30 * float((pixels[:30] == colour).all(-1).mean())

    asked = ask(shocked_by_the_cover)
    heat, largest = occlusion_heat(asked)
    assert find_flatness(largest) is None
    doubt = find_disagreement(asked, heat)
    assert doubt is not None
    assert doubt.key == "explain.not-confirmed"


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 7), (16, 16)])
def test_images_of_any_size_are_covered_whole(size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), 7, np.uint8)
    cover = np.full_like(pixels, 200)
    everywhere = np.ones((covers.GRID_SIDE, covers.GRID_SIDE), bool)
    assert (covers.cover_cells(pixels, cover, everywhere) == 200).all()
    assert (covers.cover_cells(pixels, cover, ~everywhere) == 7).all()
    assert covers.blur_cover(pixels).shape == pixels.shape


def test_log_odds_keep_what_a_probability_near_one_has_lost() -> None:
    import torch

    logits = torch.tensor([[40.0, 0.0, -3.0], [20.0, 0.0, -3.0], [0.0, 0.0, 0.0]])
    log_odds = token_log_odds(logits, torch.tensor([0, 0, 1]))
    assert (torch.sigmoid(log_odds[:2]) == 1).all()  # both are the same as probabilities
    assert log_odds.tolist() == pytest.approx([39.951, 19.951, -0.693], abs=1e-3)
    # One token: itself; two of p = 1/4 and 1/2: p = 1/8.
    assert sequence_log_odds(log_odds[:, None]).tolist() == pytest.approx(log_odds.tolist(), abs=1e-3)
    pair = torch.tensor([[np.log(1 / 3), 0.0]])
    assert sequence_log_odds(pair).item() == pytest.approx(np.log(1 / 7), abs=1e-5)
