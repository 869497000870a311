"""Which micro-batch a run gets, and whether it fits into memory: on paper, before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.answers import read_answers
from kovqa_core.errors import KovqaError, SettingsError
from kovqa_core.machine.hardware import available_memory, visible_gpus
from kovqa_core.messages import Message, message
from kovqa_core.models.memory import (
    BYTES_PER_GB,
    ElementSize,
    MemoryEstimate,
    StepMemory,
    estimate_memory,
    fits_in_memory,
    largest_fitting_estimate,
    recipe_step_memory,
)
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.run import split_recipe_batch

AUTO_MICRO_BATCH = "auto"


@dataclass(frozen=True)
class MemoryPlan:
    """What a run needs of each device, and what there is.

    Attributes:
        needs: at the planned micro-batch; None: it cannot be counted.
        memory: bytes of one device; None: not known.
        best: at the largest micro-batch that fits; None: none does, or it is not known.
        unknown: why it cannot be counted; empty where it can.
        fixed: does the recipe fix the micro-batch?
    """

    needs: MemoryEstimate | None
    memory: float | None
    best: MemoryEstimate | None
    unknown: str = ""
    fixed: bool = False

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


def choose_micro_batch(
    recipe: Recipe, profile: Profile, micro_batch: str | None = None
) -> tuple[Profile, MemoryPlan]:
    """The profile with the requested micro-batch, and the memory it needs.

    Args:
        recipe: what is trained; its index and weights may be missing: then typical sizes are taken.
        profile: the machine.
        micro_batch: "auto" (the largest that fits), a number, or None: what the profile says.

    Raises:
        SettingsError: neither a number nor auto; nothing says how much fits; the recipe fixes another.
    """
    loss_micro_batch = recipe.optim.loss_micro_batch
    if micro_batch is not None and loss_micro_batch is not None and micro_batch != str(loss_micro_batch):
        raise _micro_batch_is_fixed(micro_batch, loss_micro_batch)
    automatic = micro_batch == AUTO_MICRO_BATCH
    if micro_batch is not None and not automatic:
        profile = with_micro_batch(profile, recipe.name, _parse_micro_batch(micro_batch))
    try:
        element_size = ElementSize(4 if profile.precision == "fp32" else 2, profile.device == "cpu")
        step_memory = recipe_step_memory(recipe, _count_answer_classes(recipe), element_size)
        memory = device_memory(profile)
    except KovqaError as error:
        if automatic:
            raise _auto_impossible(
                message(
                    "plan.auto-cannot-count", "--micro-batch auto cannot tell: {reason}", reason=error.message
                )
            ) from None
        return profile, MemoryPlan(None, None, None, error.message)
    fewest = profile.on_nodes(profile.node_range[0])  # of a range: where each process has the most to hold
    per_process = recipe.optim.global_batch // fewest.processes or 1  # examples of one optimizer step
    estimate = _estimate_by_micro_batch(step_memory, fewest, per_process, has_ema=recipe.optim.ema_decay > 0)
    best = largest_fitting_estimate(per_process, memory, estimate) if memory else None
    if automatic:
        if memory is None:
            raise _auto_impossible(
                message("plan.auto-without-memory", "--micro-batch auto does not know this machine's memory")
            )
        # 1 where nothing fits by this count: a run whose strategy can be probed still tries it.
        profile = with_micro_batch(profile, recipe.name, best.micro_batch if best else 1)
    planned, _ = split_recipe_batch(recipe, profile.on_nodes(profile.node_range[0]))
    return profile, MemoryPlan(estimate(planned), memory, best, fixed=loss_micro_batch is not None)


def with_micro_batch(profile: Profile, recipe: str, micro_batch: int) -> Profile:
    """The profile, with another number of examples that one process holds for a recipe."""
    return profile.model_copy(update={"micro_batch": {**profile.micro_batch, recipe: micro_batch}})


def _auto_impossible(problem: Message) -> SettingsError:
    return SettingsError(problem, message("plan.auto-impossible.hint", "give a number"))


def _micro_batch_is_fixed(requested: str, fixed: int) -> SettingsError:
    return SettingsError(
        message(
            "plan.micro-batch-is-fixed",
            "--micro-batch {requested}: the recipe's loss is the mean of means over micro-batches of {fixed}, on "
            "every machine (optim.loss_micro_batch)",
            requested=requested,
            fixed=fixed,
        ),
        message(
            "plan.micro-batch-is-fixed.hint",
            "leave out --micro-batch; --set optim.loss_micro_batch=null averages over the global batch instead, "
            "another experiment",
        ),
    )


def _parse_micro_batch(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(
            message(
                "plan.bad-micro-batch",
                "--micro-batch {text}: neither a number of examples nor auto",
                text=text,
            ),
            message("plan.bad-micro-batch.hint", "like 8"),
        )
    return int(text)


def _estimate_by_micro_batch(
    step_memory: StepMemory, profile: Profile, per_process: int, *, has_ema: bool
) -> Callable[[int], MemoryEstimate]:
    """Micro-batch -> what a step needs, accumulating as often as makes up a process's rows."""
    # The process's rows stay the same: half the micro-batch is twice the accumulation, and gradients are then kept.
    return lambda micro_batch: estimate_memory(
        step_memory, profile, micro_batch, per_process // micro_batch, has_ema=has_ema
    )


def _count_answer_classes(recipe: Recipe) -> int | None:
    """Answers of the index, if it is here."""
    try:
        return len(read_answers(Path(recipe.data.index or "") / "answers.txt"))
    except KovqaError:
        return None


def device_memory(profile: Profile) -> float | None:
    """Bytes of one device; None: not known.

    Of a GPU: what the profile says, or this machine's smallest. Without one: the memory that is free now,
    shared by the processes of a node.
    """
    if profile.device == "cpu":
        # Processes of one node share its memory, where each GPU has its own.
        free = available_memory()
        return None if free is None else free / profile.processes_per_node
    # One whose memory nobody knows could be the smallest: then nothing is known.
    memory_gb = profile.gpu_memory_gb or min((gpu.memory_gb or 0 for gpu in visible_gpus()), default=0)
    return memory_gb * BYTES_PER_GB or None
