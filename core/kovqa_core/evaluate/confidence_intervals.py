"""95 % intervals of scores.

* Wilson's interval (Wilson 1927; the choice of Brown, Cai and DasGupta 2001 for shares) where scores
  are right or wrong and every picture is asked about once, so that the rows are independent.
* The bootstrap over pictures (percentile method, Efron and Tibshirani 1993; pictures are drawn with
  all their questions, as Field and Welsh 2007 draw clusters) for everything else: questions about one
  picture stand or fall together, and soft scores are no shares.
* Where all rows have the same score of 0 or 1 there is nothing to draw: Wilson's interval again, which
  never says "certainly", with as many trials as there are pictures.
"""

from __future__ import annotations

import math

import numpy as np

BOOTSTRAP_DRAWS, BOOTSTRAP_SEED = 1000, 0
_NORMAL_QUANTILE = 1.959963984540054  # 97.5 % of a normal distribution lie below
_BLOCK_NUMBERS = 4_000_000  # numbers of a block of draws


def wilson_interval(right: float, rows: int) -> tuple[float, float]:
    """Interval of a share of `rows` independent trials, `right` of them a success."""
    share, square = right / rows, _NORMAL_QUANTILE * _NORMAL_QUANTILE / rows
    middle = share + square / 2
    half = _NORMAL_QUANTILE * math.sqrt(share * (1 - share) / rows + square / rows / 4)
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def bootstrap_sums(table: np.ndarray) -> np.ndarray:
    """Column sums of `DRAWS` samples of the rows, each as large as the table; seeded.

    Equal rows are counted instead of drawn one by one, which is the same sample, only faster.

    Args:
        table: [pictures, columns].

    Returns:
        [DRAWS, columns].
    """
    distinct, counts = np.unique(table, axis=0, return_counts=True)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    block = max(1, _BLOCK_NUMBERS // len(distinct))
    sizes = [min(block, BOOTSTRAP_DRAWS - start) for start in range(0, BOOTSTRAP_DRAWS, block)]
    shares = counts / counts.sum()
    return np.concatenate([rng.multinomial(len(table), shares, size=n) @ distinct for n in sizes])


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of a statistic's draws."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def score_interval(pictures: np.ndarray, binary: bool) -> tuple[float, float, str]:
    """Interval of a mean score, and "wilson" or "bootstrap"; the rule stands at the top of this file.

    Args:
        pictures: [pictures, 2], the sum of the scores of a picture's rows and the number of its rows.
        binary: every score is 0 or 1.
    """
    right, rows = pictures.sum(axis=0)
    if binary and (rows == len(pictures) or right in (0, rows)):
        return *wilson_interval(right / rows * len(pictures), len(pictures)), "wilson"
    sums = bootstrap_sums(pictures)
    return *percentile_interval(sums[:, 0] / sums[:, 1]), "bootstrap"
