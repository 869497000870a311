"""The one rule of rows that are left out: 1 % is a warning, 10 % an error."""

from __future__ import annotations

import numpy as np
import pytest
from kovqa_core.data.left_out import are_surely_more, are_too_many, is_worth_a_warning


@pytest.mark.parametrize(
    ("faults", "rows", "warning", "error"),
    [(0, 0, False, False), (1, 100, False, False), (2, 100, True, False), (10, 100, True, False),
     (11, 100, True, True), (1, 9, True, True), (1000, 100_000, False, False), (10_001, 100_000, True, True)],
)  # fmt: skip
def test_thresholds(faults: int, rows: int, warning: bool, error: bool) -> None:
    assert is_worth_a_warning(faults, rows) == warning
    assert are_too_many(faults, rows) == error


@pytest.mark.parametrize(("fraction", "within"), [(1.0, 8), (0.5, 64), (0.2, 640), (0.125, 16_000)])
def test_too_many_are_noticed_long_before_the_end(fraction: float, within: int) -> None:
    """Rows come in random order, in steps of 8; a tenth or less is never taken for more."""
    left_out = np.random.default_rng(0).random(100_000) < fraction
    counts = np.cumsum(left_out)[7::8]
    first = next(n for n, count in enumerate(counts, 1) if are_surely_more(0.1, int(count), 8 * n))
    assert 8 * first <= within


@pytest.mark.parametrize("seed", range(20))
def test_a_twentieth_is_never_taken_for_more_than_a_tenth(seed: int) -> None:
    counts = np.cumsum(np.random.default_rng(seed).random(20_000) < 0.05)[15::16]
    assert not any(are_surely_more(0.1, int(count), 16 * n) for n, count in enumerate(counts, 1))
