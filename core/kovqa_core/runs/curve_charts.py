"""The charts of a page about runs: loss, score, learning rate and speed, of all runs over each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kovqa_core.evaluate.metrics import METRICS, format_metric_value
from kovqa_core.runs.events import TrainStepEvent
from kovqa_core.runs.run_curves import RunCurves, best_evaluation, metric_of, smooth_loss
from kovqa_core.web.chart_content import BilingualText, ChartAxis, ChartMark, ChartSeries, LineChart
from kovqa_core.web.chart_scale import NumberForm

_LOG_RATIO = 50  # a loss that falls by more is drawn on a logarithmic axis
_TIME_UNITS = (
    (86400.0, "일", "days"),
    (3600.0, "시간", "hours"),
    (60.0, "분", "minutes"),
    (1.0, "초", "seconds"),
)


@dataclass(frozen=True)
class CurveAxis:
    """What curves run along.

    Attributes:
        axis: of the chart.
        place: where a step of a run stands on it; None: nobody knows.
    """

    axis: ChartAxis
    place: Callable[[RunCurves, int], float | None]


@dataclass(frozen=True)
class RunChart:
    """A chart over steps, and over time where that is known and of use."""

    by_step: LineChart
    by_time: LineChart | None = None


def run_charts(runs: Sequence[RunCurves]) -> list[RunChart]:
    """The charts of a page; numbers of different kinds never share an axis.

    A loss has one chart per family and task, a score one per metric.
    """
    steps = ChartAxis(BilingualText("스텝", "steps"), whole=True, shows=(0, 0))
    step = CurveAxis(steps, lambda _, step: step)
    axes = [axis for axis in (step, _time_axis(runs)) if axis is not None]
    losses = list(dict.fromkeys(run.loss_kind for run in runs))
    charts = []
    for kind in losses:
        title = "" if len(losses) == 1 else f" · {kind}"
        charts.append(RunChart(*(_loss_chart(runs, kind, title, axis) for axis in axes)))
    for metric in dict.fromkeys(metric_of(run) for run in runs if run.evaluations):
        charts.append(RunChart(*(_score_chart(runs, metric, axis) for axis in axes)))
    speed = BilingualText("초당 학습한 예제", "Examples per second")
    charts.append(
        RunChart(_value_chart(runs, BilingualText("학습률", "Learning rate"), step, lambda e: e.lr))
    )
    charts.append(RunChart(_value_chart(runs, speed, step, lambda e: e.examples_per_second)))
    return charts


def _time_axis(runs: Sequence[RunCurves]) -> CurveAxis | None:
    """Time of training in a unit that fits the longest run; None where no run has times."""
    longest = max((run.seconds[-1] for run in runs if run.seconds), default=0.0)
    if longest <= 0:
        return None
    unit, korean, english = next((row for row in _TIME_UNITS if longest >= 2 * row[0]), _TIME_UNITS[-1])

    def place(run: RunCurves, step: int) -> float | None:
        seconds = run.seconds_at(step)
        return None if seconds is None else seconds / unit

    return CurveAxis(
        ChartAxis(BilingualText(f"학습 시간({korean})", f"{english} of training"), shows=(0, 0)),
        place,
    )


def _loss_chart(runs: Sequence[RunCurves], kind: str, title: str, along: CurveAxis) -> LineChart:
    faint, lines = [], []
    for style, run in enumerate(runs):
        if run.loss_kind != kind:
            continue
        losses, steps = [event.loss for event in run.steps], [event.step for event in run.steps]
        smoothed, window = smooth_loss(losses)
        lines.append(ChartSeries(run.name, _points(run, steps, smoothed, along), style=style))
        if window > 1:
            faint.append(ChartSeries(run.name, _points(run, steps, losses, along), kind="faint", style=style))
    heights = [y for line in lines for _, y in line.points if y is not None and y > 0]
    is_log = bool(heights) and max(heights) > _LOG_RATIO * min(heights)
    label = BilingualText("손실(로그 눈금)", "loss, logarithmic") if is_log else BilingualText("손실", "loss")
    return LineChart(
        BilingualText(f"손실{title}", f"Loss{title}"),
        along.axis,
        ChartAxis(label, log=is_log),
        [*faint, *lines],
    )


def _score_chart(runs: Sequence[RunCurves], metric: str, along: CurveAxis) -> LineChart:
    shown = [(style, run) for style, run in enumerate(runs) if metric_of(run) == metric]
    lines = []
    for style, run in shown:
        steps, scores = [e.step for e in run.evaluations], [e.score for e in run.evaluations]
        mark = _best_mark(run, along, named=len(shown) == 1)
        lines.append(ChartSeries(run.name, _points(run, steps, scores, along), style=style, mark=mark))
    known = METRICS.get(metric)
    form: NumberForm = "percent" if known and known.number.endswith("%") else "number"
    label = metric_label(metric)
    title = BilingualText(f"검증 점수 · {label.korean}", f"Validation score · {label.english}")
    return LineChart(title, along.axis, ChartAxis(label, form=form), lines)


def metric_label(metric: str) -> BilingualText:
    """What a page calls a metric: its name, which is the same in both languages, but for accuracy."""
    return BilingualText("정확도", "accuracy") if metric == "accuracy" else BilingualText(metric, metric)


def _best_mark(run: RunCurves, along: CurveAxis, *, named: bool) -> ChartMark | None:
    best = best_evaluation(run)
    x = along.place(run, best.step) if best else None
    if best is None or x is None:
        return None
    value = format_metric_value(metric_of(run), best.task, best.score)
    text = BilingualText(f"최고 {value}", f"best {value}") if named else BilingualText("", "")
    return ChartMark(x, best.score, text)


def _value_chart(
    runs: Sequence[RunCurves],
    title: BilingualText,
    along: CurveAxis,
    value: Callable[[TrainStepEvent], float],
) -> LineChart:
    """One number of each line of the log."""
    lines = [
        ChartSeries(run.name, _points(run, [e.step for e in run.steps], [*map(value, run.steps)], along))
        for run in runs
    ]
    label = BilingualText(title.korean, title.english.lower())
    return LineChart(title, along.axis, ChartAxis(label), lines)


def _points(
    run: RunCurves, steps: Sequence[int], values: Sequence[float], along: CurveAxis
) -> list[tuple[float, float | None]]:
    places = (along.place(run, step) for step in steps)
    return [(x, y) for x, y in zip(places, values, strict=True) if x is not None]
