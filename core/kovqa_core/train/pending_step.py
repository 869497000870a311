"""An optimizer step whose numbers are on their way from the device to the host."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kovqa_core.distributed import watchdog
from kovqa_core.train.strategies.base import MicroBatchLoss


@dataclass
class StepBatches:
    """What went into one optimizer step on this process.

    Attributes:
        losses: of each micro-batch.
        ids: of each micro-batch's examples.
        left_out: ids of examples that could not be learned from.
        faults: what is wrong with those of them that cannot be read.
    """

    losses: list[MicroBatchLoss] = field(default_factory=list)
    ids: list[list[str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PendingStep:
    """An optimizer step of which the host knows nothing yet.

    Attributes:
        step: from 0.
        micro_batches: what went into it on this process.
        read: of `read_later`, one row: `StepSums`, norm, skipped or not, loss scale before and after, finite steps.
        known_at: when the numbers were known, by `time.monotonic`; None: when they are read.
    """

    step: int
    micro_batches: StepBatches
    read: Callable[[], list[list[float]]]
    known_at: float | None

    def read_numbers(self) -> tuple[list[float], float]:
        """The numbers, once they are here, and when they were."""
        # What is waited for is the other processes as well: their collectives lie in the same queue of work.
        with watchdog.waiting_for_peers():
            (numbers,) = self.read()
        return numbers, time.monotonic() if self.known_at is None else self.known_at
