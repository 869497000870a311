"""What a run needs of each device and what there is, and why its micro-batch is what it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kovqa_core.messages import Message, message
from kovqa_core.models.memory import BYTES_PER_GB, MemoryEstimate, StepMemory, fits_in_memory

# By whom a micro-batch was chosen: the profile or the one who typed; the count; nobody, so that it is a small one.
NumberFrom = Literal["stated", "counted", "careful"]


@dataclass(frozen=True)
class MemoryPlan:
    """What a run needs of each device, and what there is.

    Attributes:
        needs: at the planned micro-batch; None: it cannot be counted.
        memory: bytes of one device; None: not known.
        best: at the largest micro-batch that fits; None: none does, or it is not known.
        unknown: why it cannot be counted; empty where it can.
        fixed: does the recipe fix the micro-batch?
        number_from: who chose the micro-batch.
        checkpointing: are activations computed twice?
        fits_without: of a counted micro-batch: as many would fit without checkpointing.
        step: what a step of the model holds; None: it cannot be counted.
    """

    needs: MemoryEstimate | None
    memory: float | None
    best: MemoryEstimate | None
    unknown: str = ""
    fixed: bool = False
    number_from: NumberFrom = "stated"
    checkpointing: bool = False
    fits_without: int = 0
    step: StepMemory | None = None

    @property
    def warning(self) -> Message | None:
        """That memory will hardly do, and what would; None where it does, or nobody knows."""
        needs, memory = self.needs, self.memory
        if needs is None or memory is None or fits_in_memory(needs, memory):
            return None
        shortage = message(
            "plan.too-little-memory",
            "micro-batch {micro_batch} needs about {needed:.1f} GB, the profile's device has {available:.1f} GB",
            micro_batch=needs.micro_batch,
            needed=needs.peak / BYTES_PER_GB,
            available=memory / BYTES_PER_GB,
        )
        if self.fixed:
            return message(
                "plan.fixed-too-large",
                "{shortage}; the recipe fixes it (optim.loss_micro_batch)",
                shortage=shortage,
            )
        if self.best is None:
            return message(
                "plan.nothing-fits",
                "{shortage}; by this estimate not even one example fits",
                shortage=shortage,
            )
        return message(
            "plan.smaller-fits",
            "{shortage} → --micro-batch {micro_batch} needs about {needed:.1f} GB",
            shortage=shortage,
            micro_batch=self.best.micro_batch,
            needed=self.best.peak / BYTES_PER_GB,
        )

    def choice(self, micro_batch: int) -> Message:
        """Why the micro-batch is what it is, and whether activations are computed twice.

        Args:
            micro_batch: of the run.
        """
        if self.fixed:
            why = message(
                "plan.micro-batch-fixed", "micro-batch {micro_batch}: the recipe's", micro_batch=micro_batch
            )
        elif self.number_from == "stated":
            why = message(
                "plan.micro-batch-stated",
                "micro-batch {micro_batch}: typed, or by the profile's micro_batch",
                micro_batch=micro_batch,
            )
        elif self.number_from == "careful" or self.memory is None:
            why = message(
                "plan.micro-batch-careful",
                "micro-batch {micro_batch}: few, because nothing says how many fit ({reason}); --micro-batch N sets another",
                micro_batch=micro_batch,
                reason=self.unknown or message("plan.memory-unknown", "neither the profile nor this machine"),
            )
        else:
            why = message(
                "plan.micro-batch-counted",
                "micro-batch {micro_batch}: the most that fits into {memory:.0f} GB and divides a process's part of a batch",
                micro_batch=micro_batch,
                memory=self.memory / BYTES_PER_GB,
            )
        if not self.checkpointing:
            return why
        if self.number_from != "counted":
            return message("plan.with-checkpointing", "{why}; activations are computed twice", why=why)
        return message(
            "plan.counted-with-checkpointing",
            "{why}; activations are computed twice (without that {fits} would fit)",
            why=why,
            fits=self.fits_without or message("plan.none-fits", "not one"),
        )
