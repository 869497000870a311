"""Paired tests against values worked out by hand, and against pairs of models that are equally good."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from kovqa_core.evaluate import confidence_intervals, paired_tests
from kovqa_core.evaluate.paired_tests import binomial_p, holm_correction, mcnemar_test, paired_bootstrap

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 3), (0, 5), (1, 9), (40, 31), (300, 400)])
def test_binomial_p_is_exact(wins: int, losses: int) -> None:
    trials, fewer = wins + losses, min(wins, losses)
    exact = min(1.0, 2 * sum(math.comb(trials, k) for k in range(fewer + 1)) / 2**trials)
    assert binomial_p(wins, losses) == binomial_p(losses, wins) == pytest.approx(exact, rel=1e-12)


def test_mcnemar_counts_rows_or_images() -> None:
    a = np.array([1, 1, 1, 0, 0, 1, 1, 0], bool)
    b = np.array([0, 0, 1, 1, 0, 1, 0, 0], bool)
    single = mcnemar_test(a, b, np.arange(8))
    assert (single.a_only, single.b_only, single.both, single.neither) == (3, 1, 2, 2)
    assert (single.by_images, single.a_better, single.b_better) == (False, 3, 1)
    assert single.p == pytest.approx(2 * 5 / 16)
    # Images 0 and 3: A has more right. 1: each has one. 2: the same.
    grouped = mcnemar_test(a, b, np.array([0, 1, 2, 1, 2, 2, 3, 3]))
    assert (grouped.a_only, grouped.b_only) == (3, 1)
    assert (grouped.by_images, grouped.a_better, grouped.b_better) == (True, 2, 0)
    assert grouped.p == 0.5


def test_the_bootstrap_draws_images() -> None:
    rng = np.random.default_rng(0)
    numbers = np.repeat(np.arange(60), rng.integers(1, 8, 60))
    ease = rng.beta(2, 1, (2, 60))[:, numbers]
    a, b = (rng.random(ease.shape) < ease).astype(float)
    test = paired_bootstrap(a, b, numbers)
    assert test.difference == pytest.approx(a.mean() - b.mean())
    assert (test.images, test.draws) == (60, paired_tests.PAIRED_DRAWS)
    # Drawn one by one, without the shortcut by distinct images.
    sums, rows = np.bincount(numbers, weights=a - b), np.bincount(numbers)
    drawn = rng.integers(0, 60, (20_000, 60))
    means = sums[drawn].sum(axis=1) / rows[drawn].sum(axis=1)
    assert (test.low, test.high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.01)
    assert test.p == pytest.approx(2 * min((means <= 0).mean(), (means >= 0).mean()), abs=0.02)
    assert test == paired_bootstrap(a, b, numbers), "the same each time"
    # Questions of one image stand or fall together: as rows of their own they would say more than they do.
    alone = paired_bootstrap(a, b, np.arange(len(a)))
    assert alone.high - alone.low < 0.9 * (test.high - test.low)
    swapped = paired_bootstrap(b, a, numbers)
    assert (swapped.difference, swapped.low, swapped.high) == (-test.difference, -test.high, -test.low)
    assert swapped.p == test.p


def test_what_leaves_nothing_to_draw() -> None:
    a, b = np.array([1.0, 0.3, 0, 1]), np.array([1.0, 0.3, 0, 1])
    same = paired_bootstrap(a, b, np.arange(4))
    assert (same.difference, same.low, same.high, same.p, same.draws) == (0, 0, 0, 1, 0)
    always = paired_bootstrap(np.zeros(6), np.ones(6), np.arange(6))
    assert (always.difference, always.low, always.p) == (-1, -1, 2 * 0.5**6)
    assert -1 < always.high < 0
    one = paired_bootstrap(np.ones(3), np.zeros(3), np.zeros(3, int))
    assert (one.p, one.high) == (1, 1)
    few = paired_bootstrap(np.ones(100), np.repeat([0.0, 1.0], [4, 96]), np.arange(100))
    assert few.differing == 4 < paired_tests.FEW_DIFFERING
    assert few.p < 0.05 < mcnemar_test(np.ones(100, bool), np.arange(100) > 3, np.arange(100)).p
    assert one.low < 0, "one image says nothing"


def test_images_that_all_differ_take_fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_tests, "_MOST_NUMBERS", 200_000)
    a, b = np.random.default_rng(0).random((2, 100))
    assert paired_bootstrap(a, b, np.arange(100)).draws == 2000


def test_holm() -> None:
    # 3 · 0.01; 2 · 0.02 = 0.04; 0.03 is raised to the one before.
    assert holm_correction([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm_correction([0.6, 0.7]) == [1.0, 1.0]
    assert holm_correction([]) == []


def test_equal_models_are_seldom_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few pairs; `bench/paired_tests.py` has the table of 10,000."""
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setattr(paired_tests, "PAIRED_DRAWS", 300)
    monkeypatch.setattr(confidence_intervals, "BOOTSTRAP_SEED", 0)  # which it changes
    try:
        import paired_tests as bench
    finally:
        sys.modules.pop("paired_tests", None)
    found = bench.false_positives("6 questions, correlated", 100, 300, 300)
    assert 0.02 < found["bootstrap"] < 0.08
    assert 0.01 < found["McNemar"] < 0.055
    assert found["over rows"] > 0.12, "rows of one image are not independent: why images are counted"
