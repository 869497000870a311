"""95 % intervals of scores.

* Wilson's interval (Wilson 1927; the choice of Brown, Cai and DasGupta 2001 for shares) where scores
  are right or wrong and every image is asked about once, so that the rows are independent.
* The bootstrap over images (percentile method, Efron and Tibshirani 1993; images are drawn with
  all their questions, as Field and Welsh 2007 draw clusters) for everything else: questions about one
  image stand or fall together, and soft scores are not proportions.
* Where all rows have the same score of 0 or 1 there is nothing to draw: Wilson's interval again, which
  never says "certainly", with as many trials as there are images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

BOOTSTRAP_DRAWS, BOOTSTRAP_SEED = 1000, 0
_NORMAL_QUANTILE = 1.959963984540054  # 97.5 % of a normal distribution lie below
_BLOCK_NUMBERS = 4_000_000  # numbers of a block of draws


def wilson_interval(right: float, rows: int) -> tuple[float, float]:
    """Interval of a proportion: `right` successes in `rows` independent trials."""
    proportion, square = right / rows, _NORMAL_QUANTILE * _NORMAL_QUANTILE / rows
    middle = proportion + square / 2
    half = _NORMAL_QUANTILE * math.sqrt(proportion * (1 - proportion) / rows + square / rows / 4)
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def bootstrap_sums(table: np.ndarray, draws: int = BOOTSTRAP_DRAWS) -> np.ndarray:
    """Column sums of samples of the rows, drawn with replacement, each as large as the table; seeded.

    Args:
        table: [images, columns].
        draws: so many samples.

    Returns:
        [draws, columns].
    """
    distinct, counts = np.unique(table, axis=0, return_counts=True)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    block = max(1, _BLOCK_NUMBERS // len(distinct))
    sizes = [min(block, draws - start) for start in range(0, draws, block)]
    # How often each distinct row is drawn is multinomial: the same distribution as drawing rows one by one,
    # in time that grows with the distinct rows (a handful of scores) and not with the images.
    probabilities = counts / counts.sum()
    return np.concatenate([rng.multinomial(len(table), probabilities, size=n) @ distinct for n in sizes])


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of a statistic's draws."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def score_interval(images: np.ndarray, *, binary: bool) -> tuple[float, float, str]:
    """Interval of a mean score, and "wilson" or "bootstrap"; the rule stands at the top of this file.

    Args:
        images: [images, 2], the sum of the scores of an image's rows and the number of its rows.
        binary: every score is 0 or 1.
    """
    right, rows = images.sum(axis=0)
    if binary and (rows == len(images) or right in (0, rows)):
        return *wilson_interval(right / rows * len(images), len(images)), "wilson"
    sums = bootstrap_sums(images)
    return *percentile_interval(sums[:, 0] / sums[:, 1]), "bootstrap"


def mean_of_means_interval(groups: Sequence[Mapping[str, Sequence[float]]]) -> tuple[float, float]:
    """Bootstrap interval, over images, of the mean of several groups' mean scores.

    Args:
        groups: of each, image -> sum of the scores of its rows, and of their weights. A group of which a sample has
            no image is left out of that sample's mean.
    """
    numbers = {
        image: number for number, image in enumerate(dict.fromkeys(i for sums in groups for i in sums))
    }
    table = np.zeros((len(numbers), 2 * len(groups)))
    for column, sums in enumerate(groups):
        for image, (score, weight) in sums.items():
            table[numbers[image], 2 * column : 2 * column + 2] = round(score, 9), weight
    drawn = bootstrap_sums(table)
    with np.errstate(invalid="ignore"):
        means = drawn[:, 0::2] / drawn[:, 1::2]
    return percentile_interval(np.nanmean(means, axis=1))
