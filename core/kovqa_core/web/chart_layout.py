"""Where everything of a line chart lies: ranges, ticks, margins, and how lines are named."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kovqa_core.web.chart_content import BilingualText, ChartAxis, ChartSeries, Language, LineChart
from kovqa_core.web.chart_scale import (
    AxisScale,
    NumberForm,
    choose_range,
    choose_ticks,
    is_drawable,
    round_range,
    tick_formatter,
)
from kovqa_core.web.page_template import shorten_text

WIDTH, PLOT_HEIGHT = 420, 190  # units of the picture; about a pixel each on a phone
TOP, BOTTOM, LEGEND_ROW = 26, 38, 19
_EM = 12.0  # of the text: `line_chart.css`
_MAX_DIRECT_NAME = 96  # wider names stand below, and a number beside the line
_MAX_NAME = 54  # letters


@dataclass(frozen=True)
class PlacedLine:
    """A series with its place in the picture."""

    series: ChartSeries
    name: str
    number: int  # that names it, from 1: that of its style, so the same in all charts of a page; 0: it has no name
    style: int
    values: Sequence[tuple[float, float | None]]  # sorted
    drawn: Sequence[tuple[float, float]]  # those that can be


@dataclass(frozen=True)
class ChartLayout:
    """Where everything lies."""

    language: Language
    lines: Sequence[PlacedLine]
    x: AxisScale
    y: AxisScale
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    x_text: Callable[[float], str]
    y_text: Callable[[float], str]
    y_form: NumberForm
    direct: bool  # names beside the lines
    legend: Sequence[PlacedLine]


def lay_out_chart(chart: LineChart, language: Language) -> ChartLayout:
    """Places for a chart in one language; numbers along x give way until they fit."""
    lines = _place_lines(chart, language)
    named = [line for line in lines if line.number]
    direct = max((text_width(line.name) for line in named), default=0) <= _MAX_DIRECT_NAME
    several = len(named) > 1
    legend = [
        line for line in lines if line.series.kind == "reference" or (several and not direct and line.number)
    ]
    y_low, y_high = _axis_range(chart.y, _heights(lines))
    if not chart.y.log:
        y_low, y_high = round_range(y_low, y_high, 5, whole=chart.y.whole)
    y_ticks = choose_ticks(y_low, y_high, 6, log=chart.y.log, whole=chart.y.whole)
    y_text = tick_formatter(y_ticks, chart.y.form, log=chart.y.log)
    left = 10 + max((text_width(y_text(tick)) for tick in y_ticks), default=0)
    beside = max(text_width(line.name) for line in named) + 8 if several and direct else 18 if several else 0
    right = WIDTH - 14 - beside
    x_low, x_high = _axis_range(chart.x, [x for line in lines for x, _ in line.drawn])
    for most in (6, 5, 4, 3, 2):
        x_ticks = choose_ticks(x_low, x_high, most, log=chart.x.log, whole=chart.x.whole)
        x_text = tick_formatter(x_ticks, chart.x.form, log=chart.x.log)
        if sum(text_width(x_text(tick)) + 14 for tick in x_ticks) <= right - left:
            break
    if not any(line.drawn for line in lines):
        x_ticks, y_ticks = [], []
    return ChartLayout(
        language, lines, AxisScale(x_low, x_high, chart.x.log, left, right),
        AxisScale(y_low, y_high, chart.y.log, TOP + PLOT_HEIGHT, TOP),
        x_ticks, y_ticks, x_text, y_text, chart.y.form, direct, legend,
    )  # fmt: skip


def _place_lines(chart: LineChart, language: Language) -> list[PlacedLine]:
    lines, named = [], 0
    for series in chart.series:
        named += series.kind == "line"
        style = max(named - 1, 0) if series.style is None else series.style
        values = sorted(
            (point for point in series.points if math.isfinite(point[0])), key=lambda point: point[0]
        )
        drawn = [(x, y) for x, y in values if y is not None and _is_point(chart, x, y)]
        lines.append(
            PlacedLine(
                series, shorten_text(say(series.name, language), _MAX_NAME),
                style + 1 if series.kind == "line" else 0, style, values, drawn,
            )
        )  # fmt: skip
    return lines


def _is_point(chart: LineChart, x: float, y: float | None) -> bool:
    return is_drawable(x, log=chart.x.log) and is_drawable(y, log=chart.y.log)


def _heights(lines: Sequence[PlacedLine]) -> list[float]:
    heights = [y for line in lines for _, y in line.drawn]
    return heights + [end for line in lines for _, low, high in line.series.band for end in (low, high)]


def _axis_range(axis: ChartAxis, values: Sequence[float]) -> tuple[float, float]:
    shown = [value for value in (*values, *(axis.shows or ())) if is_drawable(value, log=axis.log)]
    return choose_range(shown, log=axis.log, whole=axis.whole)


def say(text: str | BilingualText, language: Language) -> str:
    """A text in one language."""
    return text if isinstance(text, str) else text.in_language(language)


def text_width(text: str) -> float:
    """About so wide, in units: Hangul takes an em, a Latin letter or digit a little more than half of one."""
    return _EM * sum(
        1.0 if letter in "%×" or unicodedata.east_asian_width(letter) in "WF" else 0.6 for letter in text
    )
