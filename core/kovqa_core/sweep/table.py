"""What came of a sweep: one line for each setting, with mean and spread over its seeds, the best first."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.evaluate.metrics import METRICS
from kovqa_core.runs.folder import read_result
from kovqa_core.runs.summary import RunSummary, summarise_runs
from kovqa_core.settings.run import RUN_FILE
from kovqa_core.sweep.plan import PlannedPoint, SweepPlan
from kovqa_core.sweep.run import FailedPoint


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        name: of its folder.
        folder: the run folder.
        seed: None: the recipe's own.
        state: of `kovqa runs`, or "new" where nothing has begun.
        score: of its best checkpoint, once it is finished.
        error: why it failed.
        job: its job in SLURM's queue, with its state; "": none.
    """

    name: str
    folder: Path
    seed: int | None
    state: str
    score: float | None = None
    error: str = ""
    job: str = ""


@dataclass(frozen=True)
class SweepRow:
    """One setting.

    Attributes:
        values: key of each axis -> its value, as it was typed.
        runs: one for each seed.
        mean: of the scores of its finished runs; None: there are none.
        spread: their sample standard deviation; None of fewer than two.
    """

    values: Mapping[str, str]
    runs: Sequence[SweepRun]
    mean: float | None
    spread: float | None

    @property
    def scores(self) -> list[float]:
        """Of its finished runs."""
        return [run.score for run in self.runs if run.score is not None]


def sweep_rows(plan: SweepPlan, failed: Sequence[FailedPoint] = ()) -> list[SweepRow]:
    """The settings of a sweep as they stand now, the best mean first, those without one last.

    Args:
        plan: the sweep.
        failed: the runs that failed just now.
    """
    begun = [each.folder for each in plan.points if (each.folder / RUN_FILE).is_file()]
    summaries = {run.folder: run for run in summarise_runs(begun)}
    errors = {each.name: each.error.message for each in failed}
    settings: dict[tuple[str, ...], list[SweepRun]] = {}
    for each in plan.points:
        run = _sweep_run(each, summaries.get(each.folder), errors.get(each.point.name, ""))
        settings.setdefault(tuple(each.point.values.values()), []).append(run)
    keys = [axis.key for axis in plan.request.grid.axes]
    rows = [_sweep_row(dict(zip(keys, values, strict=True)), runs) for values, runs in settings.items()]
    sign = -1 if METRICS[plan.metric].higher_is_better else 1
    return sorted(rows, key=lambda row: (row.mean is None, sign * (row.mean or 0.0)))


def best_run(plan: SweepPlan, rows: Sequence[SweepRow]) -> SweepRun | None:
    """Of the best setting the run with the best score; None: none is finished."""
    done = [run for run in rows[0].runs if run.score is not None]
    sign = -1 if METRICS[plan.metric].higher_is_better else 1
    return min(done, key=lambda run: sign * (run.score or 0.0), default=None)


def _sweep_run(each: PlannedPoint, summary: RunSummary | None, error: str) -> SweepRun:
    point, folder = each.point, each.folder
    if summary is None:
        return SweepRun(point.name, folder, point.seed, "failed" if error else "new", error=error)
    result = read_result(folder) if summary.state == "finished" else None
    job = " ".join(filter(None, (summary.job, summary.job_state))) if summary.job_state else ""
    state = "failed" if error else summary.state
    score = result.best_score if result and not error else None
    return SweepRun(point.name, folder, point.seed, state, score, error or summary.error, job)


def _sweep_row(values: Mapping[str, str], runs: Sequence[SweepRun]) -> SweepRow:
    scores = [run.score for run in runs if run.score is not None]
    mean = statistics.fmean(scores) if scores else None
    return SweepRow(values, runs, mean, statistics.stdev(scores) if len(scores) > 1 else None)
