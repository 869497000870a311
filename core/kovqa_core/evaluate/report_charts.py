"""The charts of the report: a run's losses and scores, and confidence beside the score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kovqa_core.evaluate.calibration import Calibration
from kovqa_core.evaluate.metrics import METRICS
from kovqa_core.evaluate.model_source import ModelSource
from kovqa_core.web.chart_content import BilingualText, ChartAxis, ChartMark, ChartSeries, LineChart
from kovqa_core.web.line_chart import draw_chart

if TYPE_CHECKING:
    from markupsafe import Markup

_STEPS = ChartAxis(BilingualText("스텝", "step"), whole=True)


def draw_learning_curve(source: ModelSource) -> list[Markup]:
    """The losses, and the validation scores with the model that answered marked; none where nothing is logged."""
    charts, curve = [], source.curve
    if curve.losses:
        loss = BilingualText("학습 손실", "training loss")
        charts.append(draw_chart(LineChart(loss, _STEPS, ChartAxis(loss), [ChartSeries(loss, curve.losses)])))
    if curve.scores:
        name = curve.metric
        score = BilingualText(f"검증 점수 ({name})", f"validation score ({name})")
        # Of metrics that this version does not know the numbers are shown as they are.
        is_share = name in METRICS and METRICS[name].number.endswith("%")
        axis = ChartAxis(score, form="percent" if is_share else "number")
        answered = BilingualText("이 모델", "this model")
        of_model = next(
            (ChartMark(step, y, answered) for step, y in curve.scores if step == source.step), None
        )
        charts.append(
            draw_chart(LineChart(score, _STEPS, axis, [ChartSeries(score, curve.scores, mark=of_model)]))
        )
    return charts


def draw_calibration(calibration: Calibration) -> Markup:
    """The mean score of each bin by its mean confidence, beside the line on which both are the same."""
    ends = (0.0, 1.0)
    same = ChartSeries(
        BilingualText("확신 = 점수", "confidence = score"), [(0.0, 0.0), (1.0, 1.0)], kind="reference"
    )
    bins = ChartSeries(
        BilingualText("점수", "score"),
        [(b.confidence, b.score) for b in calibration.bins],
        band=[(b.confidence, b.score_low, b.score_high) for b in calibration.bins],
    )
    return draw_chart(
        LineChart(
            BilingualText("확신과 점수", "Calibration"),
            ChartAxis(BilingualText("평균 확신", "mean confidence"), form="percent", shows=ends),
            ChartAxis(BilingualText("점수", "score"), form="percent", shows=ends),
            [same, bins],
        )
    )
