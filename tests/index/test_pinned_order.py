"""The order numpy's quicksort leaves equal values in, against numpy's own where it has no SIMD."""

from __future__ import annotations

import numpy as np
import pytest
from kovqa_core.index.upstream import pinned_order
from kovqa_core.index.upstream.pinned_order import numpy_quicksort


@pytest.mark.parametrize("size", [0, 1, 2, 16, 17, 18, 100, 3000])
@pytest.mark.parametrize("different", [1, 2, 10, 1000])
def test_ties_come_as_from_numpy(size: int, different: int) -> None:
    random = np.random.default_rng([size, different])
    values = random.integers(0, different, size).astype(np.int16)  # 16 bits are sorted without SIMD
    for each in (values, np.sort(values), np.sort(values)[::-1]):
        assert numpy_quicksort(each.tolist()) == np.argsort(each).tolist()


def test_a_range_that_pivots_hardly_divide_is_heap_sorted_as_in_numpy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """McIlroy's adversary makes up values while they are compared, so that every pivot is bad."""
    values: list[int | None] = [None] * 2000
    next_values = iter(range(len(values)))
    candidate = 0

    class Value:
        def __init__(self, position: int) -> None:
            self.position = position

        def __lt__(self, other: Value) -> bool:
            nonlocal candidate
            mine, theirs = values[self.position], values[other.position]
            if mine is None and theirs is None:
                frozen = self.position if self.position == candidate else other.position
                values[frozen] = next(next_values)
                mine, theirs = values[self.position], values[other.position]
            if mine is None:
                candidate = self.position
            elif theirs is None:
                candidate = other.position
            return (len(values) if mine is None else mine) < (len(values) if theirs is None else theirs)

    numpy_quicksort([Value(position) for position in range(len(values))])  # type: ignore[misc]
    bad = np.array([len(values) if value is None else value for value in values], np.int16)
    heaps: list[int] = []
    heapsort = pinned_order._heap_sort
    monkeypatch.setattr(pinned_order, "_heap_sort", lambda v, p: heaps.append(len(p)) or heapsort(v, p))
    for each in (bad, np.minimum(bad, 1000)):  # half of them equal
        heaps.clear()
        assert numpy_quicksort(each.tolist()) == np.argsort(each).tolist()
        assert heaps
