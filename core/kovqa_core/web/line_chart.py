"""Line charts as SVG, without a library: readable on a phone, in light and dark, and without telling colours apart.

A page includes `line_chart.css` beside `page.css`. What a chart shows is in `chart_content.py`, where it lies in
`chart_layout.py`, numbers and ticks are in `chart_scale.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kovqa_core.web.chart_content import ChartMark, Language, LineChart
from kovqa_core.web.chart_layout import (
    BOTTOM,
    LEGEND_ROW,
    PLOT_HEIGHT,
    TOP,
    WIDTH,
    ChartLayout,
    PlacedLine,
    lay_out_chart,
    say,
    text_width,
)
from kovqa_core.web.chart_scale import format_value, is_drawable, thin_points

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_DOTS = 40  # of a line; longer ones are drawn without
COLUMNS = 150  # in each, a line keeps its first, lowest, highest and last point
_COLOURS, _DASHES = 6, ("", "7 4", "2 4", "9 4 2 4", "14 5", "5 3 1 3 1 3")


def draw_chart(chart: LineChart) -> Markup:
    """A chart for a page of both languages: two pictures, of which the page shows one."""
    from markupsafe import Markup

    return Markup('<div lang="ko">{}</div><div lang="en">{}</div>').format(
        line_chart(chart, "ko"), line_chart(chart, "en")
    )


def line_chart(chart: LineChart, language: Language) -> Markup:
    """A chart as an `<svg>` element in one language.

    It takes the width of its place, and its text is legible from 340 pixels on. A line keeps at most
    4 · `COLUMNS` points: its peaks are among them (`thin_points`).
    """
    from markupsafe import Markup, escape

    plot = lay_out_chart(chart, language)
    parts = [*_axes(chart, plot), *_lines(plot)]
    if not any(line.drawn for line in plot.lines if line.number):
        nothing = "그릴 값이 없습니다" if language == "ko" else "no values to draw"
        parts.append(
            f'<text x="{WIDTH / 2:g}" y="{TOP + PLOT_HEIGHT / 2:g}" text-anchor="middle">{nothing}</text>'
        )
    parts += [*_names(plot), *_legend(plot)]
    height = TOP + PLOT_HEIGHT + BOTTOM + LEGEND_ROW * len(plot.legend)
    title, described = escape(say(chart.title, language)), escape(_describe(plot))
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" lang="{language}">'
        f"<title>{title}</title><desc>{described}</desc>{''.join(parts)}</svg>"
    )


def _describe(plot: ChartLayout) -> str:
    """The chart for those who do not see it."""
    korean, sentences = plot.language == "ko", []
    for line in plot.lines:
        if line.series.kind != "line":
            continue
        name, heights = line.name, [y for _, y in line.drawn]
        gaps = len(line.values) - len(heights)
        if heights:
            first, last, low, high = (
                format_value(value, plot.y_form)
                for value in (heights[0], heights[-1], min(heights), max(heights))
            )
            sentences.append(
                f"{name}: 값 {len(heights):,}개, 처음 {first}, 마지막 {last}, 최저 {low}, 최고 {high}."
                if korean else
                f"{name}: {len(heights):,} values, first {first}, last {last}, lowest {low}, highest {high}."
            )  # fmt: skip
        if gaps:
            sentences.append(f"{name}: 빈 값 {gaps:,}개." if korean else f"{name}: {gaps:,} gaps.")
    return " ".join(sentences)


def _axes(chart: LineChart, plot: ChartLayout) -> Iterator[str]:
    from markupsafe import escape

    left, right, bottom = plot.x.start, plot.x.end, plot.y.start
    yield f'<text x="0" y="13">{escape(say(chart.y.label, plot.language))}</text>'
    for tick in plot.y_ticks:
        y = plot.y.place(tick)
        yield f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{plot.y_text(tick)}</text>'
    yield f'<line class="axis" x1="{left:.1f}" x2="{right:.1f}" y1="{bottom}" y2="{bottom}"/>'
    for tick in plot.x_ticks:
        x, text = plot.x.place(tick), plot.x_text(tick)
        # The last number must not lead out of the picture.
        middle = min(max(x, text_width(text) / 2), WIDTH - text_width(text) / 2)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
        yield f'<text x="{middle:.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>'
    label = escape(say(chart.x.label, plot.language))
    yield f'<text x="{right:.1f}" y="{bottom + 33}" text-anchor="end">{label}</text>'


def _lines(plot: ChartLayout) -> Iterator[str]:
    order = {"reference": 0, "faint": 1, "line": 2}
    for line in sorted(plot.lines, key=lambda line: order[line.series.kind]):
        yield f'<g class="{_colour_class(line)}">'
        if line.series.band:
            yield _band(plot, line)
        yield f'<path{_line_attributes(line)} d="{_path(plot, line)}"/>'
        if line.series.kind == "line" and len(line.drawn) <= MAX_DOTS:
            yield from (_dot(plot, x, y) for x, y in line.drawn)
        yield "</g>"
    for line in plot.lines:
        if line.series.mark:
            yield from _mark(plot, line, line.series.mark)


def _colour_class(line: PlacedLine) -> str:
    return f"line-{line.style % _COLOURS + 1}"


def _line_attributes(line: PlacedLine) -> str:
    if line.series.kind != "line":
        return f' class="{line.series.kind}"'
    dashes = _DASHES[(line.style + line.style // _COLOURS) % len(_DASHES)]
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def _path(plot: ChartLayout, line: PlacedLine) -> str:
    drawable = set(line.drawn)
    places = [
        (plot.x.place(x), plot.y.place(y)) if y is not None and (x, y) in drawable else None
        for x, y in line.values
    ]
    words, pen_down = [], False
    for place in thin_points(places, plot.x.start, plot.x.end, COLUMNS):
        if place is not None:
            # With round ends a line of no length is a dot: a point between two gaps is seen.
            words.append(f"{'L' if pen_down else 'M'}{place[0]:.1f} {place[1]:.1f}{'' if pen_down else 'h0'}")
        pen_down = place is not None
    return "".join(words)


def _band(plot: ChartLayout, line: PlacedLine) -> str:
    is_log = plot.y.log
    band = sorted(
        point for point in line.series.band
        if is_drawable(point[0], log=plot.x.log) and all(is_drawable(end, log=is_log) for end in point[1:])
    )  # fmt: skip
    ends = [(x, high) for x, _, high in band] + [(x, low) for x, low, _ in reversed(band)]
    return f'<polygon class="band" points="{" ".join(f"{plot.x.place(x):.1f},{plot.y.place(y):.1f}" for x, y in ends)}"/>'


def _dot(plot: ChartLayout, x: float, y: float) -> str:
    said = f"{plot.x_text(x)}: {format_value(y, plot.y_form)}"
    return f'<circle cx="{plot.x.place(x):.1f}" cy="{plot.y.place(y):.1f}" r="2.6"><title>{said}</title></circle>'


def _mark(plot: ChartLayout, line: PlacedLine, mark: ChartMark) -> Iterator[str]:
    from markupsafe import escape

    x, y, text = plot.x.place(mark.x), plot.y.place(mark.y), say(mark.text, plot.language)
    half = text_width(text) / 2
    middle = min(max(x, plot.x.start + half), plot.x.end - half)
    # Beside the axis' label there is room above the highest point, but not below that label.
    is_free = y > TOP + 20 or middle - half > 130
    above = y - 9 if is_free else y + 20
    yield f'<g class="{_colour_class(line)}"><circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/></g>'
    yield f'<text class="mark halo" x="{middle:.1f}" y="{above:.1f}" text-anchor="middle">{escape(text)}</text>'


def _names(plot: ChartLayout) -> Iterator[str]:
    """Beside the end of each line its name, or the number that it has in the legend."""
    from markupsafe import escape

    named = [line for line in plot.lines if line.number and line.drawn]
    if sum(line.number > 0 for line in plot.lines) < 2:
        return
    wanted = [plot.y.place(line.drawn[-1][1]) for line in named]
    for line, y in zip(named, _spread_heights(wanted), strict=True):
        x = plot.x.end + 8
        if plot.direct:
            yield f'<text class="name halo" x="{x:.1f}" y="{y + 4:.1f}">{escape(line.name)}</text>'
        else:
            yield _tag(line, x + 6, y)


def _tag(line: PlacedLine, x: float, y: float) -> str:
    return (
        f'<g class="{_colour_class(line)}"><circle class="tag" cx="{x:.1f}" cy="{y:.1f}" r="8"/>'
        f'<text class="tag-text" x="{x:.1f}" y="{y + 3.5:.1f}">{line.number}</text></g>'
    )


def _spread_heights(wanted: Sequence[float]) -> list[float]:
    """Heights of names near those wanted, far enough apart to be read."""
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    heights = list(wanted)
    for before, number in itertools.pairwise(order):
        heights[number] = max(heights[number], heights[before] + 15)
    lowest = float(TOP + PLOT_HEIGHT)
    for number in reversed(order):
        heights[number] = min(heights[number], lowest)
        lowest = heights[number] - 15
    return heights


def _legend(plot: ChartLayout) -> Iterator[str]:
    from markupsafe import escape

    for row, line in enumerate(plot.legend):
        y = TOP + PLOT_HEIGHT + BOTTOM + LEGEND_ROW * row + 8
        yield f'<g class="{_colour_class(line)}"><path{_line_attributes(line)} d="M2 {y}H36"/></g>'
        if line.number:
            yield _tag(line, 52, y)
        yield f'<text class="name" x="{66 if line.number else 44}" y="{y + 4}">{escape(line.name)}</text>'
