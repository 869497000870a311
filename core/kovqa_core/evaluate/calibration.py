"""Is a model right as often as it says? Confidence beside the score, and the expected calibration error (ECE)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kovqa_core.evaluate.confidence_intervals import wilson_interval

CALIBRATION_BINS = 10


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of about the same confidence.

    Attributes:
        low, high: its ends, in 0…1; the lower one belongs to it, the upper one only to the last bin.
        rows: in it; at least one.
        confidence: their mean confidence.
        score: their mean score.
        score_low, score_high: its 95 % interval, as if rows were independent (Wilson): how much few rows say.
    """

    low: float
    high: float
    rows: int
    confidence: float
    score: float
    score_low: float
    score_high: float


@dataclass(frozen=True)
class Calibration:
    """Confidence beside the score.

    Attributes:
        bins: those with rows, ascending.
        error: ECE, the mean over rows of |confidence - score| of their bin; None without a row that has a confidence.
        rows: with a confidence.
        missing: rows without one.
    """

    bins: Sequence[CalibrationBin]
    error: float | None
    rows: int
    missing: int


def measure_calibration(confidence: np.ndarray, scores: np.ndarray) -> Calibration:
    """Calibration over `CALIBRATION_BINS` bins of equal width.

    Of equal width, as in Guo et al. 2017 ("On Calibration of Modern Neural Networks"; they have 15): bins of equal
    mass would cut through the many rows of one rounded confidence, 1.0 above all, and depend on their order.

    Args:
        confidence: [rows] in 0…1; NaN: the row has none.
        scores: [rows] in 0…1.
    """
    known = ~np.isnan(confidence)
    confidence, scores = confidence[known], scores[known]
    numbers = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    rows = np.bincount(numbers, minlength=CALIBRATION_BINS)
    sums = [
        np.bincount(numbers, weights=values, minlength=CALIBRATION_BINS) for values in (confidence, scores)
    ]
    bins = []
    for number in np.flatnonzero(rows):
        ends = number / CALIBRATION_BINS, (number + 1) / CALIBRATION_BINS
        mean_confidence, mean_score = (float(total[number] / rows[number]) for total in sums)
        interval = wilson_interval(float(sums[1][number]), int(rows[number]))
        bins.append(CalibrationBin(*ends, int(rows[number]), mean_confidence, mean_score, *interval))
    error = sum(b.rows * abs(b.confidence - b.score) for b in bins) / len(scores) if bins else None
    return Calibration(bins, error, len(scores), int((~known).sum()))
