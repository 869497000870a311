"""Axes of charts: where the ticks stand, how numbers are written, and which points of a long series are drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

NumberForm = Literal["number", "percent"]
LARGEST = 1e300  # larger values are no numbers of a curve, and ranges of them would not be numbers
_TINY_RANGE = 1e-9  # a range is widened that is smaller than this share of its values: it is rounding
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class AxisScale:
    """One axis.

    Attributes:
        low, high: ends of its range, low < high.
        log: logarithmic; both ends are positive.
        start, end: where they lie in the picture.
    """

    low: float
    high: float
    log: bool
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where a value lies in the picture; outside of its ends for one out of range."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, 5e-324))
        return self.start + (self.end - self.start) * (value - low) / (high - low)


def is_drawable(value: float | None, *, log: bool) -> bool:
    """Can a value stand on an axis? A gap is drawn for NaN, infinities and, on a logarithmic axis, what is not positive."""
    return (
        value is not None
        and math.isfinite(value)
        and abs(value) <= LARGEST
        and (value > 1 / LARGEST or not log)
    )


def choose_range(values: Sequence[float], *, log: bool, whole: bool = False) -> tuple[float, float]:
    """The ends of an axis that shows all values; wider than nothing, also for none or a constant.

    Args:
        values: drawable ones.
        log: of a logarithmic axis.
        whole: of whole numbers, such as steps.
    """
    if not values:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(values), max(values)
    if log:
        return (low / 2, high * 2) if high / low < 1 + _TINY_RANGE else (low, high)
    if high - low > _TINY_RANGE * max(abs(low), abs(high)) and high - low > 1e-300:
        return low, high
    margin = max(abs(high) / 10, 1e-300)
    if whole or abs(high) < 1e-290:
        margin = max(margin, 1.0)
    return low - margin, high + margin


def choose_ticks(low: float, high: float, most: int, *, log: bool, whole: bool = False) -> list[float]:
    """Round numbers of a range, ascending, at most so many (of a logarithmic one: 1, 2 and 5 times powers of ten).

    Args:
        low, high: ends of the range.
        most: at least 2.
        log: of a logarithmic axis.
        whole: fractions are left out.
    """
    if log:
        return _log_ticks(low, high, most)
    for step in _round_steps((high - low) / most, whole=whole):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [_exact_multiple(number, step) for number in range(first, last + 1)]


def round_range(low: float, high: float, most: int, *, whole: bool) -> tuple[float, float]:
    """A range that reaches to round numbers at both ends; where rounding has no step, as it is."""
    ticks = choose_ticks(low, high, most, log=False, whole=whole)
    if len(ticks) < 2:
        return low, high
    step = ticks[1] - ticks[0]
    ends = (
        _exact_multiple(math.floor(low / step + 1e-9), step),
        _exact_multiple(math.ceil(high / step - 1e-9), step),
    )
    return (ends[0], ends[1]) if ends[0] <= low < high <= ends[1] * (1 + 1e-9) else (low, high)


def _round_steps(least: float, *, whole: bool) -> Iterator[float]:
    """1, 2 and 5 times powers of ten, ascending, from about a size on."""
    power = max(math.floor(math.log10(least)), -307)
    while True:
        for factor in (1, 2, 5):
            step = float(f"{factor}e{power}")
            if step >= least * 0.999 and (step >= 1 or not whole):
                yield step
        power += 1


def _exact_multiple(number: int, step: float) -> float:
    """Without what floats add: 3 · 0.1 is 0.3."""
    return float(f"{number * step:.12g}")


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1,)):
        ticks = [float(f"{factor}e{power}") for power in powers if power >= -307 for factor in factors]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(ticks) <= most:
            break
    else:
        every = -(-len(ticks) // most)
        ticks = ticks[::every]
    # Less than a factor of two, or no such number inside: a short piece of a logarithmic axis is nearly straight.
    return ticks if len(ticks) > 1 else choose_ticks(low, high, most, log=False)


def tick_formatter(ticks: Sequence[float], form: NumberForm, *, log: bool) -> Callable[[float], str]:
    """A function that writes the numbers of an axis: all with the decimals that its ticks need."""
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    smallest = min([step for step in steps if step > 0], default=max(map(abs, ticks), default=1) or 1)
    shown = smallest * (100 if form == "percent" else 1)
    decimals = max(0, -math.floor(math.log10(shown) + 1e-9)) if shown > 0 else 0
    largest = max(map(abs, ticks), default=0)
    short = [format_short(tick) for tick in ticks]
    if form == "number" and (log or decimals > 4 or largest >= 1e7) and len(set(short)) == len(short):
        return format_short
    if form == "percent":
        return lambda value: f"{100 * value:.{min(decimals, 4)}f}%"
    return lambda value: f"{value:,.{decimals}f}"


def format_short(value: float) -> str:
    """A number of three digits: 12,345; 0.00123; 1.5×10⁻⁷."""
    if value == 0 or 1e-4 <= abs(value) < 1e7:
        digits = 0 if abs(value) >= 100 or value == 0 else 2 - math.floor(math.log10(abs(value)))
        text = f"{value:,.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    factor, power = f"{value:.2e}".split("e")
    factor = factor.rstrip("0").rstrip(".")
    return f"{'' if factor == '1' else factor + '×'}10{str(int(power)).translate(_SUPERSCRIPTS)}"


def format_value(value: float, form: NumberForm) -> str:
    """One value, beside its point."""
    return f"{100 * value:.1f}%" if form == "percent" else format_short(value)


def thin_points(
    places: Sequence[tuple[float, float] | None], start: float, end: float, columns: int
) -> list[tuple[float, float] | None]:
    """The points of a line that can be seen: in each of so many columns the first, lowest, highest and last one.

    What is drawn of them differs by less than a column from the whole line: no peak is lost. (M4, Jugel et al.,
    VLDB 2014.)

    Args:
        places: in the picture, by ascending x; None: a gap.
        start, end: of the picture's x.
        columns: so many.

    Returns:
        The same list if it is short; else at most 4 points a column, and the gaps between them.
    """
    if len(places) <= 4 * columns:
        return list(places)
    chosen: set[int] = set()
    for column in _group_columns(places, start, end, columns):
        heights = [(places[number] or (0.0, 0.0))[1] for number in column]
        extremes = (heights.index(min(heights)), heights.index(max(heights)))
        chosen |= {column[0], column[-1], *(column[extreme] for extreme in extremes)}
    thinned: list[tuple[float, float] | None] = []
    for number, place in enumerate(places):
        if number in chosen or (place is None and thinned and thinned[-1] is not None):
            thinned.append(place)
    return thinned


def _group_columns(
    places: Sequence[tuple[float, float] | None], start: float, end: float, columns: int
) -> Iterator[list[int]]:
    """Numbers of the points of each column that has any."""
    groups: dict[int, list[int]] = {}
    for number, place in enumerate(places):
        if place is not None:
            groups.setdefault(int((place[0] - start) / (end - start) * columns), []).append(number)
    yield from groups.values()
