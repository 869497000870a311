"""A run's log as curves: each step once, the loss smoothed, the time that training took.

Reads small files only; of a run folder that is half written, broken or of another version, what can be read.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kovqa_core.evaluate.metrics import METRICS, is_better, metric_name
from kovqa_core.messages import Message
from kovqa_core.messages.readable_name import readable_name
from kovqa_core.runs.events import EvaluationEvent, TrainStepEvent
from kovqa_core.runs.log_file import read_logged_events
from kovqa_core.runs.summary import RunDetails, read_run_details
from kovqa_core.runs.validation_samples import EvaluationSamples, read_samples
from kovqa_core.settings.run import optim_at_step

SMOOTH_SHARE = 20  # the smoothed loss is the mean over one of so many parts of the curve
EventType = TypeVar("EventType", TrainStepEvent, EvaluationEvent)


@dataclass(frozen=True)
class RunCurves:
    """All that a page shows of a run.

    Attributes:
        name: distinct from those of the other runs.
        details: settings, state, launches.
        steps: the log's lines about training, by ascending step, each step once.
        evaluations: likewise.
        seconds: of training, up to each of `steps`; pauses between launches do not count. Empty where the settings,
            and so the batch, cannot be read.
        samples: answers to a few validation examples.
        problems: what cannot be read and is left out.
    """

    name: str
    details: RunDetails
    steps: Sequence[TrainStepEvent]
    evaluations: Sequence[EvaluationEvent]
    seconds: Sequence[float]
    samples: Sequence[EvaluationSamples]
    problems: Sequence[Message]

    @property
    def loss_kind(self) -> str:
        """What its loss is a loss of: those of other families and tasks are other numbers."""
        summary = self.details.summary
        return f"{summary.family} {summary.task}" if summary.family else readable_name(self.name)

    def seconds_at(self, step: float) -> float | None:
        """Seconds of training up to a step, between two lines of the log by interpolation; None: not known."""
        if not self.seconds:
            return None
        after = min(bisect.bisect_left(self.steps, step, key=lambda event: event.step), len(self.steps) - 1)
        step_before, before = (self.steps[after - 1].step, self.seconds[after - 1]) if after else (0, 0.0)
        share = (step - step_before) / (self.steps[after].step - step_before)
        return before + min(share, 1.0) * (self.seconds[after] - before)


def read_curves(folders: Sequence[Path]) -> list[RunCurves]:
    """Curves of runs; never fails because of what is in their folders."""
    return [
        _read_run_curves(folder, name) for folder, name in zip(folders, distinct_names(folders), strict=True)
    ]


def _read_run_curves(folder: Path, name: str) -> RunCurves:
    details, events = read_run_details(folder), read_logged_events(folder)
    steps = in_step_order(event for event in events if isinstance(event, TrainStepEvent))
    evaluations = in_step_order(event for event in events if isinstance(event, EvaluationEvent))
    samples, problems = read_samples(folder)
    return RunCurves(
        name, details, steps, evaluations, _training_seconds(details, steps), samples,
        [*details.problems, *problems],
    )  # fmt: skip


def in_step_order(events: Iterable[EventType]) -> list[EventType]:
    """Each step once: where a log goes back to an earlier step, what stood after that step was done again."""
    kept: list[EventType] = []
    for event in events:
        while kept and kept[-1].step >= event.step:
            kept.pop()
        kept.append(event)
    return kept


def _training_seconds(details: RunDetails, steps: Sequence[TrainStepEvent]) -> list[float]:
    """By the log's own speed, for it holds no times."""
    run, seconds, total, before = details.run, [], 0.0, 0
    if run is None:
        return []
    for event in steps:
        examples = (event.step - before) * optim_at_step(run, event.step - 1).global_batch
        total += examples / event.examples_per_second if event.examples_per_second > 0 else 0.0
        seconds.append(total)
        before = event.step
    return seconds


def smooth_loss(losses: Sequence[float]) -> tuple[list[float], int]:
    """Means over the neighbours of each value, and of how many; of a short curve the values themselves, of 1.

    A window that is cut at both ends alike lags behind nothing: the curve begins and ends where the loss does.
    """
    half = len(losses) // SMOOTH_SHARE // 2
    sums = [0.0]
    for loss in losses:
        sums.append(sums[-1] + loss)
    smoothed = []
    for number in range(len(losses)):
        reach = min(half, number, len(losses) - 1 - number)
        smoothed.append((sums[number + reach + 1] - sums[number - reach]) / (2 * reach + 1))
    return (smoothed if half else list(losses)), 2 * half + 1


def metric_of(curves: RunCurves) -> str:
    """The name of the metric that the run's scores are of."""
    named = next((event.metric for event in curves.evaluations if event.metric), None)
    task = curves.evaluations[0].task if curves.evaluations else curves.details.summary.task or "vqa"
    return metric_name(named or curves.details.summary.metric, task)


def best_evaluation(curves: RunCurves) -> EvaluationEvent | None:
    """The evaluation with the best score, the first of equal ones; None without any, or of a metric not known here."""
    metric, best = METRICS.get(metric_of(curves)), None
    for event in curves.evaluations if metric else ():
        assert metric is not None
        if is_better(metric, event.score, best.score if best else None):
            best = event
    return best


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """A name for each run folder: its own, with those of the folders around it as far as two are alike."""
    paths = [folder.resolve() for folder in folders]
    depth, deepest = 1, max((len(path.parts) for path in paths), default=1)
    while depth < deepest and len({_last_parts(path, depth) for path in paths}) < len(set(paths)):
        depth += 1
    return [_last_parts(path, depth) for path in paths]


def _last_parts(path: Path, count: int) -> str:
    return "/".join(part for part in path.parts[-count:] if part != path.anchor) or str(path)
