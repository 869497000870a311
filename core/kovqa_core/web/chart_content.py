"""What a line chart shows: lines, axes, words in both languages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kovqa_core.web.chart_scale import NumberForm

Language = Literal["ko", "en"]


@dataclass(frozen=True)
class BilingualText:
    """One text in both languages of a page."""

    korean: str
    english: str

    def in_language(self, language: Language) -> str:
        """The text in one of them."""
        return self.korean if language == "ko" else self.english


@dataclass(frozen=True)
class ChartMark:
    """One point of a series that stands out, with what is said of it."""

    x: float
    y: float
    text: BilingualText


@dataclass(frozen=True)
class ChartSeries:
    """One line.

    Attributes:
        name: a str is the same in both languages: a name of a run, an answer.
        points: (x, y); None, NaN and infinities are gaps. In any order: they are sorted by x.
        band: (x, low, high) of an area around the line, such as an interval; what is not finite is left out.
        kind: "faint" is drawn thin below the others, without a name; "reference" is grey and dashed.
        style: number of colour and dashes, from 0; None: by its place among the lines.
        mark: a point that stands out.
    """

    name: str | BilingualText
    points: Sequence[tuple[float, float | None]]
    band: Sequence[tuple[float, float, float]] = ()
    kind: Literal["line", "faint", "reference"] = "line"
    style: int | None = None
    mark: ChartMark | None = None


@dataclass(frozen=True)
class ChartAxis:
    """One axis.

    Attributes:
        label: what it counts, with its unit.
        form: how its numbers are written; "percent" shows 0.5 as 50%.
        log: logarithmic; values that are not positive are gaps.
        whole: of whole numbers, such as steps: no ticks between them.
        shows: a range that is in the picture at least; None: that of the values.
    """

    label: BilingualText
    form: NumberForm = "number"
    log: bool = False
    whole: bool = False
    shows: tuple[float, float] | None = None


@dataclass(frozen=True)
class LineChart:
    """One chart: all its lines share both axes."""

    title: BilingualText
    x: ChartAxis
    y: ChartAxis
    series: Sequence[ChartSeries]
