"""The class order that pandas 1.5 and numpy 1.24 gave VQA_NIA: by count, ties as its quicksort leaves them.

A checkpoint of the original names its classes by position only, and `value_counts` sorts unstably.
So a list of answers is sorted here as those two libraries did, whatever is installed.
Checked against recorded orders, and against numpy itself where it still sorts this way.
(docs/sources/vqa_nia.md, N21)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# numpy's SMALL_QUICKSORT; with another limit, equal counts would lie in another order.
_INSERTION_SORT_MAX = 16  # as many values or fewer are sorted by insertion


def pinned_order(counts: Mapping[str, int]) -> list[str]:
    """Answers in the original's class order.

    Args:
        counts: answer -> how often, in the order the answers were first seen.
    """
    backwards = list(counts)[::-1]  # pandas reverses values before and after sorting them
    places = numpy_quicksort([counts[answer] for answer in backwards])
    return [backwards[place] for place in reversed(places)]


def numpy_quicksort(values: Sequence[int]) -> list[int]:
    """Places of the values in ascending order, equal ones as numpy's `argsort` without SIMD leaves them.

    Introsort: median of three as the pivot, the wider side of a partition pushed on a stack; insertion sort
    below 17 values; heap sort of a range from the stack that took more than 2·log2(n) partitions to reach.
    """
    places = list(range(len(values)))
    # `bit_length() - 1` is floor(log2 n), numpy's limit of partitions before heap sort.
    stack = [(0, len(values) - 1, 2 * (len(values).bit_length() - 1))]
    while stack:
        low, high, depth = stack.pop()
        if depth < 0:
            places[low : high + 1] = _heap_sort(values, places[low : high + 1])
            continue
        while high - low + 1 > _INSERTION_SORT_MAX:
            middle = _partition_range(values, places, low, high)
            depth -= 1
            # The wider side waits on the stack, which therefore never grows beyond log2 n.
            if middle - low < high - middle:
                stack.append((middle + 1, high, depth))
                high = middle - 1
            else:
                stack.append((low, middle - 1, depth))
                low = middle + 1
        # Python's sort is stable, as insertion sort is: the same order.
        places[low : high + 1] = sorted(places[low : high + 1], key=values.__getitem__)
    return places


def _partition_range(values: Sequence[int], places: list[int], low: int, high: int) -> int:
    """Partition a range at the median of its first, middle and last value; returns where that value ends up."""
    middle = low + (high - low) // 2
    for left, right in ((low, middle), (middle, high), (low, middle)):
        if values[places[right]] < values[places[left]]:
            places[left], places[right] = places[right], places[left]
    pivot = values[places[middle]]
    # The pivot waits at the place before the last; first and last are in order already, and stop the two loops.
    i, j = low, high - 1
    places[middle], places[j] = places[j], places[middle]
    while True:
        i, j = i + 1, j - 1
        while values[places[i]] < pivot:
            i += 1
        # Strict on both sides: equal values are swapped too, which is why the sort is not stable.
        while pivot < values[places[j]]:
            j -= 1
        if i >= j:
            break
        places[i], places[j] = places[j], places[i]
    places[i], places[high - 1] = places[high - 1], places[i]
    return i


def _heap_sort(values: Sequence[int], places: list[int]) -> list[int]:
    """The places sorted by value with a heap whose root is the largest."""
    for root in reversed(range(len(places) // 2)):
        _sift_down(values, places, root, len(places))
    for end in reversed(range(1, len(places))):
        places[0], places[end] = places[end], places[0]
        _sift_down(values, places, 0, end)
    return places


def _sift_down(values: Sequence[int], places: list[int], root: int, end: int) -> None:
    """Let the root's value sink to its place in the heap of the first `end` places."""
    sinking = places[root]
    while (child := 2 * root + 1) < end:
        if child + 1 < end and values[places[child]] < values[places[child + 1]]:
            child += 1
        # Not `<=`: a child of equal value does not rise, as in numpy.
        if not values[sinking] < values[places[child]]:
            break
        places[root], root = places[child], child
    places[root] = sinking
