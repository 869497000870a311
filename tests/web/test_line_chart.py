"""Charts: every series becomes a picture that is well-formed, inside its frame, and true."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import kovqa_core
import pytest
from kovqa_core.web.chart_content import BilingualText, ChartAxis, ChartMark, ChartSeries, LineChart
from kovqa_core.web.chart_layout import lay_out_chart
from kovqa_core.web.chart_scale import choose_ticks, format_short, tick_formatter
from kovqa_core.web.line_chart import COLUMNS, draw_chart, line_chart

WEB = Path(kovqa_core.__file__).parent / "web"
STEPS, LOSS = ChartAxis(BilingualText("스텝", "steps"), whole=True), ChartAxis(BilingualText("손실", "loss"))
LOG_LOSS = ChartAxis(BilingualText("손실", "loss"), log=True)
Points = Sequence[tuple[float, float | None]]


def chart(*series: ChartSeries, y: ChartAxis = LOSS) -> LineChart:
    return LineChart(BilingualText("손실 곡선", "Loss curve"), STEPS, y, series)


def lines_of(svg: str) -> list[list[tuple[float, float]]]:
    """The pieces of every path, each a list of places."""
    root = ElementTree.fromstring(svg)
    paths = [path.attrib["d"] for path in root.iter("path")]
    pieces = [piece for path in paths for piece in path.split("M")[1:]]
    return [
        [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", piece)] for piece in pieces
    ]


SERIES: dict[str, Points] = {
    "none": [],
    "one point": [(100, 0.5)],
    "constant": [(step, 5.0) for step in range(100)],
    "zeros": [(step, 0.0) for step in range(3)],
    "huge": [(step * 1e12, 10.0 ** (step * 5)) for step in range(60)],
    "huge constant": [(0, 1e300), (1, 1e300)],
    "both ends": [(0, -1e300), (1, 1e300)],
    "tiny": [(step, step * 1e-305) for step in range(9)],
    "denormal": [(0, 5e-324), (1, 1e-323)],
    "close together": [(step, 1 + step * 1e-15) for step in range(9)],
    "not finite": [(0, math.nan), (1, math.inf), (math.nan, 1), (2, None), (3, -1e305)],
    "gaps": [(step, None if step % 7 == 0 else step**2) for step in range(60)],
    "negative": [(-step, -float(step)) for step in range(50)],
    "backwards": [(5, 1), (3, 2), (4, 8)],
}  # fmt: skip


@pytest.mark.parametrize("y", [LOSS, LOG_LOSS], ids=["linear", "log"])
@pytest.mark.parametrize("name", SERIES)
def test_every_series_lies_inside_its_picture(name: str, y: ChartAxis) -> None:
    svg = line_chart(chart(ChartSeries("가", SERIES[name]), y=y), "ko")
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    drawable = [v for x, v in SERIES[name] if v is not None and math.isfinite(v + x) and abs(v) <= 1e300]
    drawable = [v for v in drawable if v > 1e-300 or not y.log]
    places = [place for line in lines_of(svg) for place in line]
    assert len(places) == len(drawable)
    places += [
        (float(e.attrib[x]), float(e.attrib[z]))
        for e in root.iter()
        for x, z in (("x", "y"), ("cx", "cy"))
        if x in e.attrib
    ]
    assert all(0 <= left <= width and 0 <= top <= height for left, top in places)
    assert ("그릴 값이 없습니다" in svg) == (not drawable)
    assert not re.search(r"nan|inf\b|None|style=|<script", svg)


def test_gaps_are_gaps_and_a_point_between_two_of_them_is_seen() -> None:
    svg = line_chart(
        chart(ChartSeries("가", [(0, 1), (1, None), (2, 3), (3, math.nan), (4, 5), (5, 6)])), "ko"
    )
    assert [len(line) for line in lines_of(svg)] == [1, 1, 2]
    assert svg.count("h0") == 3 and "값 4개" in svg and "빈 값 2개" in svg


def test_a_long_series_keeps_its_peaks_and_stays_small() -> None:
    points = [(float(step), math.sin(step / 9000)) for step in range(100_000)]
    points[31_337] = (31_337.0, 40.0)
    points[77_777] = (77_777.0, -40.0)
    series = ChartSeries("가", points)
    (line,) = lines_of(line_chart(chart(series), "ko"))
    plot = lay_out_chart(chart(series), "ko")
    assert len(line) <= 4 * (COLUMNS + 1)
    for x, y in ((31_337.0, 40.0), (77_777.0, -40.0), points[0], points[-1]):
        assert (round(plot.x.place(x), 1), round(plot.y.place(y), 1)) in line


def test_every_second_value_missing_leaves_the_rest() -> None:
    points = [(float(step), None if step % 2 else 1.0) for step in range(10_000)]
    lines = lines_of(line_chart(chart(ChartSeries("가", points)), "ko"))
    assert 100 < sum(map(len, lines)) <= 4 * (COLUMNS + 1)


@pytest.mark.parametrize(
    ("low", "high", "log", "ticks"),
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.1, 0.35, False, [0.1, 0.15, 0.2, 0.25, 0.3, 0.35]),
        (100, 4000, False, [1000, 2000, 3000, 4000]),
        (0.001, 4, True, [0.001, 0.01, 0.1, 1]),
        (1, 30, True, [1, 2, 5, 10, 20]),
        (1e-12, 1, True, [1e-12, 1e-9, 1e-6, 1e-3, 1]),
    ],
)
def test_ticks_are_round(low: float, high: float, log: bool, ticks: list[float]) -> None:
    assert choose_ticks(low, high, 6, log=log) == ticks


def test_steps_have_no_ticks_between_them() -> None:
    assert choose_ticks(0, 2, 6, log=False, whole=True) == [0, 1, 2]


def test_numbers_of_an_axis_have_the_same_decimals() -> None:
    assert [*map(tick_formatter([0, 0.5, 1], "number", log=False), (0, 0.5, 1))] == ["0.0", "0.5", "1.0"]
    assert [*map(tick_formatter([0.745, 0.75], "percent", log=False), (0.745, 0.75))] == ["74.5%", "75.0%"]
    assert tick_formatter([0, 10_000], "number", log=False)(10_000) == "10,000"
    assert [*map(format_short, (1.5e-7, 0.00123, 12_345.6, 1e9, 0))] == [
        "1.5×10⁻⁷",
        "0.00123",
        "12,346",
        "10⁹",
        "0",
    ]


def test_names_beside_lines_do_not_lie_on_each_other() -> None:
    names = ["한국어 모델", "run-b", "run-c", "<b>&"]
    svg = line_chart(
        chart(*(ChartSeries(name, [(0, 1), (9, 1 + k / 1e6)]) for k, name in enumerate(names))), "ko"
    )
    shown = [e for e in ElementTree.fromstring(svg).iter("text") if "name" in e.attrib.get("class", "")]
    heights = sorted(float(e.attrib["y"]) for e in shown)
    assert sorted(e.text or "" for e in shown) == sorted(names)
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 14


def test_long_names_stand_below_and_a_number_beside_the_line() -> None:
    names = [f"한국어-퓨전-2026-11-28-긴-이름-{number}" for number in range(7)]
    svg = line_chart(chart(*(ChartSeries(name, [(0, 1), (9, k)]) for k, name in enumerate(names))), "ko")
    assert all(svg.count(name) >= 2 for name in names)  # in the description, too
    tags = [
        e.text or "" for e in ElementTree.fromstring(svg).iter("text") if e.attrib.get("class") == "tag-text"
    ]
    assert sorted(tags) == sorted([*"1234567"] * 2)
    looks = re.findall(r'<g class="(line-\d)"><path( stroke-dasharray="[^"]*")? d="M\d', svg)
    assert len(set(looks)) == 7, "colour or dashes differ"


def test_a_page_has_the_chart_in_both_languages_and_mixes_none() -> None:
    series = ChartSeries(
        BilingualText("점수", "score"), [(0, 0.5), (100, 0.75)], band=[(0, 0.4, 0.6), (100, 0.7, math.nan)],
        mark=ChartMark(100, 0.75, BilingualText("최고", "best")),
    )  # fmt: skip
    diagonal = ChartSeries(BilingualText("기준", "reference"), [(0, 0), (100, 1)], kind="reference")
    korean, english = re.findall("<svg.*?</svg>", draw_chart(chart(series, diagonal)))
    assert not re.search("[a-z]{2,}", " ".join(ElementTree.fromstring(korean).itertext()))
    assert not re.search("[가-힣]", " ".join(ElementTree.fromstring(english).itertext()))
    assert "최고" in korean and "기준" in korean and 'class="band"' in korean and "nan" not in korean


def test_colours_have_contrast_and_are_told_apart_by_the_colour_blind() -> None:
    """WCAG's 3 : 1 for what must be seen; no two alike, in OKLab, for any of the three kinds.

    The kinds are simulated after Machado et al. 2009, severity 1; 0.02 in OKLab can just be told apart side by side.
    """
    page, own = ((WEB / name).read_text("utf-8") for name in ("page.css", "line_chart.css"))
    for theme in (0, 1):
        card = re.findall(r"--card: (#[0-9a-f]+)", page)[theme]
        colours = [
            found[theme] for number in range(1, 7) if (found := re.findall(rf"--line-{number}: (#\w+)", own))
        ]
        assert len(colours) == 6
        assert min(_contrast(colour, card) for colour in colours) >= 3
        for matrix in _BLINDNESS.values():
            seen = [_seen(colour, matrix) for colour in colours]
            assert min(math.dist(a, b) for a, b in itertools.combinations(seen, 2)) > 0.08


_BLINDNESS = {
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}  # fmt: skip


def _linear(colour: str) -> list[float]:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    values = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]


def _contrast(a: str, b: str) -> float:
    lights = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (_linear(a), _linear(b)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _seen(colour: str, matrix: Sequence[Sequence[float]]) -> list[float]:
    """OKLab of a colour as such eyes see it (Ottosson 2020)."""
    seen = [min(1.0, max(0.0, value)) for value in _times(matrix, _linear(colour))]
    return _times(_OKLAB_COLOUR, [value ** (1 / 3) for value in _times(_OKLAB_CONES, seen)])


_OKLAB_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)  # fmt: skip
_OKLAB_COLOUR = (
    (0.2104542553, 0.7936177850, -0.0040720468), (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)  # fmt: skip


def _times(matrix: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, values, strict=True)) for row in matrix]


def test_ticks_of_a_narrow_range_are_told_apart() -> None:
    """A learning rate between two log lines."""
    ticks = [0.000998, 0.0009985, 0.000999, 0.0009995, 0.001]
    assert len({*map(tick_formatter(ticks, "number", log=False), ticks)}) == len(ticks)
