"""The chart of the page: how often models are right, by how sure they say they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kovqa_core.web.chart_content import BilingualText, ChartAxis, ChartSeries, LineChart
from kovqa_core.web.line_chart import draw_chart


def calibration_chart(bins: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The chart as HTML of both languages.

    Args:
        bins: "a" and "b" -> what `ViewQueries.calibration` counts; no bins: no line.
    """
    lines = [
        ChartSeries(model.upper(), [(each["confidence"], each["score"]) for each in rows], style=number)
        for number, (model, rows) in enumerate(bins.items())
        if rows
    ]
    ideal = ChartSeries(
        BilingualText("확신과 점수가 같음", "score equals confidence"), [(0, 0), (1, 1)], kind="reference"
    )
    percent = (0.0, 1.0)
    return str(
        draw_chart(
            LineChart(
                BilingualText("확신에 따른 점수", "Score by confidence"),
                ChartAxis(BilingualText("확신", "confidence"), "percent", shows=percent),
                ChartAxis(BilingualText("점수", "score"), "percent", shows=percent),
                [*lines, ideal],
            )
        )
    )
