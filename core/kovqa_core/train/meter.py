"""What the log says of training: means between two of its lines, speed, the time left."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from kovqa_core.data.left_out import (
    ERROR_FRACTION,
    WARNING_FRACTION,
    are_surely_more,
    are_too_many,
    left_out_text,
    too_many_left_out,
)
from kovqa_core.messages import Message, message
from kovqa_core.runs.events import TrainProgressEvent, TrainStepEvent, WarningEvent
from kovqa_core.train import optim
from kovqa_core.train.state import TrainState


@dataclass
class TrainMeter:
    """Means between two lines of the log; the time left.

    Attributes:
        state: of the run.
        began: when this launch's first step began, by `time.monotonic`.
        first_step: that this launch went on from.
        losses, left_out: since the last line of the log.
        left_out_in_all: since this launch began.
        has_warned: was it said that many examples are left out?
        last_logged_at: by `time.monotonic`; None before the first line.
    """

    state: TrainState
    began: float
    first_step: int
    losses: list[float] = field(default_factory=list)
    left_out: int = 0
    left_out_in_all: int = 0
    has_warned: bool = False
    last_logged_at: float | None = None

    def count_step(self, loss: float, norm: float, left_out: int) -> None:
        """Count one optimizer step, and the examples left out of it; log every `log_every`.

        Raises:
            DataError: too many are left out; on all processes alike.
        """
        state, step, now = self.state, self.state.progress.step, time.monotonic()
        recipe = state.run.recipe
        self.losses.append(loss)
        self.left_out += left_out
        self.left_out_in_all += left_out
        # Over this launch alone: `began` knows nothing of earlier ones.
        steps_done = step - self.first_step
        seconds_left = (now - self.began) / steps_done * (state.steps.total - step)
        rate = steps_done * recipe.optim.global_batch / (now - self.began)
        state.log.report_progress(
            TrainProgressEvent(
                step, state.steps.total, loss, rate, seconds_left, left_out=self.left_out_in_all or None
            )
        )
        if step % recipe.log_every == 0 or step == state.steps.total:
            self._log_means(norm, now)
        self._judge_left_out(left_out, steps_done)

    def _judge_left_out(self, left_out: int, steps_done: int) -> None:
        """One warning above 1 %, an error above 10 %, by the rule of `data/left_out.py`.

        As soon as it is sure, for rows come in random order; and by the exact number after one epoch, unless
        training ends with it: what is learned is then not thrown away.
        """
        state, faults = self.state, self.left_out_in_all
        batch, epoch_rows = state.run.recipe.optim.global_batch, len(state.examples)
        rows = steps_done * batch
        ends_epoch = rows - batch < epoch_rows <= rows and state.progress.step < state.steps.total
        if not state.run.allow_left_out and (
            are_surely_more(ERROR_FRACTION, faults, rows) or (ends_epoch and are_too_many(faults, rows))
        ):
            raise too_many_left_out(faults, rows, _left_out_reasons(), _left_out_hint())
        if left_out and not self.has_warned and are_surely_more(WARNING_FRACTION, faults, rows):
            self.has_warned = True
            text = left_out_text(faults, rows, _left_out_reasons())
            state.log.emit_event(
                WarningEvent(message("train.left-out-warning", "warning: {text}", text=text))
            )

    def _log_means(self, norm: float, now: float) -> None:
        state, step, settings = self.state, self.state.progress.step, self.state.run.recipe.optim
        seconds = now - (self.began if self.last_logged_at is None else self.last_logged_at)
        scaler = state.strategy.loss_scaler
        state.log.log_record(
            TrainStepEvent(
                step,
                loss=sum(self.losses) / len(self.losses),
                # JSON has no infinity: null says that the step was skipped.
                grad_norm=norm if math.isfinite(norm) else None,
                # Steps count from 0 in the schedule; `step` is already the number of steps done.
                lr=optim.run_learning_rate(state.run, step - 1, len(state.examples)),
                examples_per_second=len(self.losses) * settings.global_batch / max(seconds, 1e-9),
                left_out=self.left_out or None,
                loss_scale=scaler.value if scaler.dynamic else None,
            )
        )
        self.losses, self.left_out, self.last_logged_at = [], 0, now


def _left_out_reasons() -> Message:
    return message("train.left-out-reasons", "longer than model.max_text, or without an answer")


def _left_out_hint() -> Message:
    return message(
        "train.left-out.hint",
        "raise model.max_text, lower model.max_pixels, or go on without them: add --allow-left-out",
    )
