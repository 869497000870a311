"""What the log says of training: means between two of its lines, speed, the time left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from kovqa_core.data.left_out import (
    ERROR_FRACTION,
    WARNING_FRACTION,
    are_surely_more,
    are_too_many,
    left_out_text,
    too_many_left_out,
    training_reasons,
)
from kovqa_core.messages import Message, message
from kovqa_core.plan.run_length import MEASURED_STEPS, energy_bound
from kovqa_core.runs.events import TimeLeftEvent, TrainProgressEvent, TrainStepEvent, WarningEvent
from kovqa_core.train import optim
from kovqa_core.train.state import TrainState
from kovqa_core.train.step_report import StepReport

_UNTIMED_STEPS = 10  # of a launch: the first ones wait for loaders and compilers
_MAX_NAMED_FAULTS = 8  # by warnings of a launch, and in a line of the log


@dataclass
class TrainMeter:
    """Means between two lines of the log; the time left.

    Attributes:
        state: of the run.
        began: when this launch's first step began, by `time.monotonic`.
        first_step: that this launch went on from.
        losses, left_out, faults: since the last line of the log; faults are those of the rows left out that
            cannot be read, in words.
        left_out_in_all, faults_in_all: since this launch began.
        named: faults of which a warning told.
        has_warned: was it said that many examples are left out?
        last_logged_at: by `time.monotonic`; None before the first line.
        last_logged_step: of the last line; before it, the first step.
        timed_from: when the steps by which the whole run is timed began, by `time.monotonic`.
    """

    state: TrainState
    began: float
    first_step: int
    losses: list[float] = field(default_factory=list)
    left_out: int = 0
    left_out_in_all: int = 0
    faults: list[str] = field(default_factory=list)
    faults_in_all: int = 0
    named: list[str] = field(default_factory=list)
    has_warned: bool = False
    last_logged_at: float | None = None
    last_logged_step: int = field(init=False)
    timed_from: float | None = None

    def __post_init__(self) -> None:
        """Nothing is logged yet."""
        self.last_logged_step = self.first_step

    def count_step(self, report: StepReport) -> None:
        """Count one optimizer step, and the examples left out of it; log every `log_every`.

        Raises:
            DataError: too many are left out; on all processes alike.
        """
        state, step, now = self.state, report.step + 1, report.read_at
        recipe = state.run.recipe
        if report.left_out < recipe.optim.global_batch:  # nothing has no loss
            self.losses.append(report.loss)
        self.left_out += report.left_out
        self.left_out_in_all += report.left_out
        self._name_faults(report.faults)
        # Over this launch alone: `began` knows nothing of earlier ones.
        steps_done = step - self.first_step
        seconds_left = (now - self.began) / steps_done * (state.steps.total - step)
        rate = steps_done * recipe.optim.global_batch / max(now - self.began, 1e-9)
        state.log.report_progress(
            TrainProgressEvent(
                step, state.steps.total, report.loss, rate, seconds_left,
                left_out=self.left_out_in_all or None,
            )
        )  # fmt: skip
        self._tell_time(step, now)
        if step % recipe.log_every == 0 or step == state.steps.total:
            self._log_means(report)
        self._judge_left_out(report)

    def _tell_time(self, step: int, now: float) -> None:
        """Say once in a launch how long it takes: after `MEASURED_STEPS`, by all of them but the first ones."""
        state, done = self.state, step - self.first_step
        if done == _UNTIMED_STEPS:
            self.timed_from = now
        if done != MEASURED_STEPS or self.timed_from is None or step >= state.steps.total:
            return
        seconds, total = (now - self.timed_from) / (MEASURED_STEPS - _UNTIMED_STEPS), state.steps.total
        energy = energy_bound(state.run.profile, seconds * total)
        state.log.emit_event(TimeLeftEvent(step, total, seconds, seconds * (total - step), energy))

    def _name_faults(self, faults: Sequence[str]) -> None:
        """Say of each row that cannot be read which it is: once, and of some only; the log has their number."""
        self.faults += faults
        self.faults_in_all += len(faults)
        for fault in faults:
            if fault not in self.named and len(self.named) < _MAX_NAMED_FAULTS:
                self.named.append(fault)
                self.state.log.emit_event(
                    WarningEvent(message("train.row-left-out", "warning: left out: {fault}", fault=fault))
                )

    def _judge_left_out(self, report: StepReport) -> None:
        """One warning above 1 %, an error above 10 %, by the rule of `data/left_out.py`.

        As soon as it is sure, for rows come in random order; and by the exact number after one epoch, unless
        training ends with it: what is learned is then not thrown away.
        """
        state, faults = self.state, self.left_out_in_all
        batch, epoch_rows = state.run.recipe.optim.global_batch, len(state.examples)
        rows = (report.step + 1 - self.first_step) * batch
        ends_epoch = rows - batch < epoch_rows <= rows and report.step + 1 < state.steps.total
        if not state.run.allow_left_out and (
            are_surely_more(ERROR_FRACTION, faults, rows) or (ends_epoch and are_too_many(faults, rows))
        ):
            raise too_many_left_out(faults, rows, self._left_out_reasons(), self._left_out_hint())
        if report.left_out and not self.has_warned and are_surely_more(WARNING_FRACTION, faults, rows):
            self.has_warned = True
            text = left_out_text(faults, rows, self._left_out_reasons())
            state.log.emit_event(
                WarningEvent(message("train.left-out-warning", "warning: {text}", text=text))
            )

    def _log_means(self, report: StepReport) -> None:
        state, settings = self.state, self.state.run.recipe.optim
        step, norm, now = report.step + 1, report.norm, report.read_at
        seconds = now - (self.began if self.last_logged_at is None else self.last_logged_at)
        scaler = report.loss_scaler
        state.log.log_record(
            TrainStepEvent(
                step,
                loss=sum(self.losses) / max(1, len(self.losses)),
                # JSON has no infinity: null says that the step was skipped.
                grad_norm=norm if math.isfinite(norm) else None,
                # Steps count from 0 in the schedule.
                lr=optim.run_learning_rate(state.run, step - 1, len(state.examples)),
                examples_per_second=(step - self.last_logged_step)
                * settings.global_batch
                / max(seconds, 1e-9),
                left_out=self.left_out or None,
                loss_scale=scaler.value if scaler.dynamic else None,
                unreadable=len(self.faults) or None,
                faults=list(dict.fromkeys(self.faults))[:_MAX_NAMED_FAULTS] or None,
            )
        )
        self.losses, self.left_out, self.faults = [], 0, []
        self.last_logged_at, self.last_logged_step = now, step

    def _left_out_reasons(self) -> Message:
        first = self.named[0] if self.named else ""
        return training_reasons(self.faults_in_all, self.left_out_in_all - self.faults_in_all, first)

    def _left_out_hint(self) -> Message | None:
        if 2 * self.faults_in_all > self.left_out_in_all:
            return None  # the usual one: they are to be mended
        return message(
            "train.left-out.hint",
            "raise model.max_text, lower model.max_pixels, or go on without them: add --allow-left-out",
        )
