"""What an answer loses where its image is covered (Zeiler & Fergus 2014; docs/sources/explain.md, X1 and X2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kovqa_core.explain import covers
from kovqa_core.explain.score_items import AnswerScorer
from kovqa_core.messages import Message, message

MARKED_FRACTION = 0.1  # of the image: its most important part
_LEAST_MARKED_HEAT = 0.1  # of what is marked: what hardly matters is not marked only to fill a tenth
# Log-odds: below, covering no place takes the answer's odds down to 37 %. Of 200 maps of each family 78 to 100 % are doubted
# where its weights are shuffled, 2 to 19 % where they are trained (bench/explain_check.py).
_FLAT_DROP = 1.0
_SHIFTS = 3  # steps along each side by which the marked tenth is moved, to be compared with itself


@dataclass(frozen=True)
class AskedImage:
    """An encoded question about an image, and the answer that is to be explained.

    Attributes:
        scorer: the model and the answer.
        item: the encoded question.
        pixels: uint8 [height, width, 3], as the model's processor reads them.
        log_odds: the answer's.
    """

    scorer: AnswerScorer
    item: Any
    pixels: np.ndarray
    log_odds: float

    def covered_drops(self, cover: np.ndarray, places: Sequence[np.ndarray]) -> np.ndarray:
        """Log-odds that the answer loses with each of these places covered, [places]."""
        items: list[Callable[[], Any]] = [partial(self._covered_item, cover, cells) for cells in places]
        return self.log_odds - self.scorer.score_items(items)

    def _covered_item(self, cover: np.ndarray, cells: np.ndarray) -> Any:
        return self.scorer.functions.with_pixels(self.item, covers.cover_cells(self.pixels, cover, cells))


def occlusion_heat(asked: AskedImage) -> tuple[np.ndarray, float]:
    """Heat, float32 [GRID_SIDE, GRID_SIDE] in 0 to 1, and the most log-odds that one window takes.

    A cell is worth the mean of what its windows take, added over both scales: large windows take things away as a
    whole, small ones say where they are. Windows are covered with the image's mean colour: a blur would leave colours,
    by which a question for one can still be answered.
    """
    scales = covers.cover_windows()
    cover = covers.mean_colour_cover(asked.pixels)
    drops = iter(asked.covered_drops(cover, [window for scale in scales for window in scale]).tolist())
    worth, largest = np.zeros((covers.GRID_SIDE, covers.GRID_SIDE)), 0.0
    for scale in scales:
        total, count = np.zeros_like(worth), np.zeros_like(worth)
        for window in scale:
            drop = next(drops)
            total[window] += drop
            count[window] += 1
            largest = max(largest, drop)
        worth += total / count
    return scale_heat(
        worth.clip(min=0)
    ), largest  # what speaks against the answer is nothing that it comes from


def scale_heat(worth: np.ndarray) -> np.ndarray:
    """Values from 0 on as float32 in 0 to 1; all 0 where none is larger."""
    return (worth / max(worth.max(), 1e-9)).astype(np.float32)


def mark_hottest(heat: np.ndarray) -> np.ndarray:
    """The MARKED_FRACTION of cells with the most heat, less those with hardly any, bool like `heat`."""
    marked = np.zeros(heat.size, bool)
    # Stable: of equal ones the first.
    marked[np.argsort(-heat.ravel(), kind="stable")[: round(heat.size * MARKED_FRACTION)]] = True
    return marked.reshape(heat.shape) & (heat >= _LEAST_MARKED_HEAT)


def find_flatness(largest_drop: float) -> Message | None:
    """That no place matters, by the most log-odds that one took; None: some place does."""
    if largest_drop >= _FLAT_DROP:
        return None
    return message(
        "explain.flat",
        "no place matters by itself: whichever is covered, the answer's log-odds fall by {drop:.2f} at most",
        drop=largest_drop,
    )


def find_disagreement(asked: AskedImage, heat: np.ndarray) -> Message | None:
    """That the marked tenth is no more important than others, once it is covered in another way; None: it is.

    It is blurred, and so are places of its own shape elsewhere: what only the first cover did to the model, a blur
    does not.
    """
    marked = mark_hottest(heat)
    steps = [covers.GRID_SIDE * n // _SHIFTS for n in range(_SHIFTS)]
    elsewhere = [np.roll(marked, (down, right), (0, 1)) for down in steps for right in steps][1:]
    of_marked, *of_others = asked.covered_drops(covers.blur_cover(asked.pixels), [marked, *elsewhere])
    if of_marked > np.median(of_others):
        return None
    return message(
        "explain.not-confirmed",
        "the map is not confirmed: blurring its marked tenth lowers the answer no more than blurring other places",
    )
