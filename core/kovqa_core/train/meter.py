"""What the log says of training: means between two of its lines, speed, the time left."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from kovqa_core.runs.events import TrainProgressEvent, TrainStepEvent
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
        last_logged_at: by `time.monotonic`; None before the first line.
    """

    state: TrainState
    began: float
    first_step: int
    losses: list[float] = field(default_factory=list)
    left_out: int = 0
    last_logged_at: float | None = None

    def count_step(self, loss: float, norm: float, left_out: int) -> None:
        """Count one optimizer step, and the examples left out of it; log every `log_every`."""
        state, step, now = self.state, self.state.progress.step, time.monotonic()
        recipe = state.run.recipe
        self.losses.append(loss)
        self.left_out += left_out
        # Over this launch alone: `began` knows nothing of earlier ones.
        steps_done = step - self.first_step
        seconds_left = (now - self.began) / steps_done * (state.steps.total - step)
        rate = steps_done * recipe.optim.global_batch / (now - self.began)
        state.log.report_progress(TrainProgressEvent(step, state.steps.total, loss, rate, seconds_left))
        if step % recipe.log_every == 0 or step == state.steps.total:
            self._log_means(norm, now)

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
