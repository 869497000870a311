"""Is the difference of two models' scores on the same rows more than chance? Paired bootstrap and McNemar's test.

* The paired bootstrap (percentile method) draws images with all their rows, as `confidence_intervals.py` does, and looks
  at the mean of the differences. Simulated with pairs of equal models it finds a difference in 4 to 6 of 100 at the 5 %
  level (`bench/paired_tests.py`), which studentised draws, conservative where few rows differ, do not.
* McNemar's test (McNemar 1947) counts the rows that one model has right and the other wrong. It assumes independent rows,
  so where an image is asked about more than once the images count in their place: those of which one model has more
  right than the other. The p value is the exact binomial one: the mid-p value, of more power, finds up to 7 in 100
  where few rows differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kovqa_core.evaluate.confidence_intervals import BOOTSTRAP_DRAWS, bootstrap_sums, percentile_interval

FEW_DIFFERING = 10  # images: with fewer that differ, the bootstrap is not to go by
PAIRED_DRAWS = 10_000  # a p value of 1/5,000 can be seen, so a correction for 60 types leaves something
_MOST_NUMBERS = (
    20_000_000  # of all draws: of 20,000 images that all differ, as captions do, `BOOTSTRAP_DRAWS` are left
)


@dataclass(frozen=True)
class PairedBootstrap:
    """The difference of two mean scores.

    Attributes:
        difference: mean score of A less that of B.
        low, high: its 95 % interval.
        p: two-sided.
        images: that were drawn from.
        draws: so many; 0 where there was nothing to draw.
        differing: images on which the two differ. With fewer than `FEW_DIFFERING` p errs to either side: of equal models
            that differ on 4 images it tells 12 in 100 apart, of those that differ on 3 none.
    """

    difference: float
    low: float
    high: float
    p: float
    images: int
    draws: int
    differing: int


@dataclass(frozen=True)
class McNemarTest:
    """Right and wrong answers of two models.

    Attributes:
        a_only, b_only: rows that only the one has right.
        both, neither: the other rows.
        by_images: images are asked about more than once, and are what the test counts.
        a_better, b_better: what the test compares: rows as above, or images of which the one has more right.
        p: two-sided, exact.
    """

    a_only: int
    b_only: int
    both: int
    neither: int
    by_images: bool
    a_better: int
    b_better: int
    p: float


def paired_bootstrap(a: np.ndarray, b: np.ndarray, image_numbers: np.ndarray) -> PairedBootstrap:
    """Compare two models' scores by drawing images with all their rows.

    With one image, or with the same difference on every image, there is nothing to draw: the interval and p are then
    those of the sign test over images (Clopper and Pearson 1934).

    Args:
        a, b: scores of the same rows; [rows], at least one.
        image_numbers: of each row, 0 … images - 1; [rows].
    """
    if math.fsum(a) < math.fsum(b):  # exchanged, so that B against A is A against B with the signs changed
        swapped = paired_bootstrap(b, a, image_numbers)
        return replace(swapped, difference=-swapped.difference, low=-swapped.high, high=-swapped.low)
    rows = np.bincount(image_numbers)
    # Rounded, so that equal sums are seen to be equal and the bootstrap can count them; the difference is not.
    sums = np.bincount(image_numbers, weights=np.round(a - b, 9))
    images = np.stack([np.round(sums, 9), rows], axis=1)
    difference = math.fsum(a) / len(a) - math.fsum(b) / len(b)
    if not np.any(images[:, 0]):
        return PairedBootstrap(0.0, 0.0, 0.0, 1.0, len(images), 0, 0)
    if np.ptp(images[:, 0] / rows) < 1e-9:
        return _same_everywhere(difference, len(images))
    distinct = len(np.unique(images, axis=0))
    draws = min(PAIRED_DRAWS, max(BOOTSTRAP_DRAWS, _MOST_NUMBERS // distinct))
    drawn = bootstrap_sums(images, draws)
    below, above = int((drawn[:, 0] <= 1e-9).sum()), int((drawn[:, 0] >= -1e-9).sum())
    # The 1s: the sample itself counts as a draw, so no p value is 0.
    p = min(1.0, 2 * (1 + min(below, above)) / (1 + draws))
    low, high = percentile_interval(drawn[:, 0] / drawn[:, 1])
    return PairedBootstrap(difference, low, high, p, len(images), draws, int(np.count_nonzero(images[:, 0])))


def _same_everywhere(difference: float, images: int) -> PairedBootstrap:
    """Every image has the same difference, and it is not 0."""
    nearest = difference * (2 * 0.025 ** (1 / images) - 1)
    low, high = sorted((nearest, difference))
    return PairedBootstrap(difference, low, high, min(1.0, 2.0 ** (1 - images)), images, 0, images)


def mcnemar_test(a: np.ndarray, b: np.ndarray, image_numbers: np.ndarray) -> McNemarTest:
    """McNemar's test of right and wrong answers.

    Args:
        a, b: is the row right? [rows] bool, at least one.
        image_numbers: of each row, 0 … images - 1; [rows].
    """
    a_only, b_only = int((a & ~b).sum()), int((b & ~a).sum())
    rows = np.bincount(image_numbers)
    by_images = bool(rows.max() > 1)
    more = np.bincount(image_numbers, weights=a.astype(float) - b)
    a_better, b_better = int((more > 0).sum()), int((more < 0).sum())
    return McNemarTest(
        a_only, b_only, int((a & b).sum()), int((~a & ~b).sum()),
        by_images, a_better, b_better, binomial_p(a_better, b_better),
    )  # fmt: skip


def binomial_p(wins: int, losses: int) -> float:
    """Two-sided exact p value of so many wins and losses, of which each is as likely as the other; 1 without any."""
    trials, fewer = wins + losses, min(wins, losses)
    if wins == losses:
        return 1.0
    steps = np.arange(fewer)
    # log of the probabilities of 0 … fewer wins: each is the one before times (trials - k) / (k + 1).
    logs = np.concatenate([[0.0], np.cumsum(np.log((trials - steps) / (steps + 1)))]) - trials * math.log(2)
    return min(1.0, 2 * float(np.exp(logs).sum()))


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """p values of several comparisons, each raised so that all together err in 5 of 100 at 0.05 (Holm 1979)."""
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        # Never less than that of a smaller one.
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = largest
    return corrected


def format_p(p: float) -> str:
    """A p value with the digits that say something."""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def compare_p(p: float) -> str:
    """A p value as it stands behind the letter in a sentence: = 0.02, < 0.001."""
    text = format_p(p)
    return f"< {text[1:]}" if text.startswith("<") else f"= {text}"
