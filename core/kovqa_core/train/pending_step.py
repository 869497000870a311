"""An optimizer step whose numbers are on their way from the device to the host."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

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


class HostTransfer:
    """Numbers of a device on their way to the host.

    Args:
        values: that nothing changes any more.
    """

    def __init__(self, values: Tensor) -> None:
        self._values, self._copied, self._known_at = values, None, time.monotonic()
        if values.device.type == "cuda":  # elsewhere the host cannot go ahead of the device, or not by this
            self._values = torch.empty_like(values, device="cpu", pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> tuple[list[float], float]:
        """The numbers, once they are here, and when they were."""
        # What is waited for is the other processes as well: their collectives lie in the same queue of work.
        with watchdog.waiting_for_peers():
            if self._copied is not None:
                self._copied.synchronize()
                self._known_at = time.monotonic()
            return self._values.tolist(), self._known_at


@dataclass(frozen=True)
class PendingStep:
    """An optimizer step of which the host knows nothing yet.

    Attributes:
        step: from 0.
        micro_batches: what went into it on this process.
        transfer: `StepSums`, then norm, skipped or not, loss scale before and after, finite steps.
    """

    step: int
    micro_batches: StepBatches
    transfer: HostTransfer
