"""Which micro-batch a run gets, and whether its memory will do: on paper, before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.answers import read_answers
from kovqa_core.errors import KovqaError, SettingsError
from kovqa_core.machine import hardware
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
from kovqa_core.settings.run import split_global_batch

AUTO_MICRO_BATCH = "auto"


@dataclass(frozen=True)
class MemoryPlan:
    """What a run needs of each device, and what there is.

    Attributes:
        needs: at the planned micro-batch; None: it cannot be counted.
        memory: bytes of one device; None: not known.
        best: at the largest micro-batch that fits; None: none does, or it is not known.
        unknown: why it cannot be counted; empty where it can.
    """

    needs: MemoryEstimate | None
    memory: float | None
    best: MemoryEstimate | None
    unknown: str = ""

    @property
    def warning(self) -> str:
        """That memory will hardly do, and what would; empty where it does."""
        if self.needs is None or self.memory is None or fits_in_memory(self.needs, self.memory):
            return ""
        short = f"micro-batch {self.needs.micro_batch} needs about {self.needs.peak / BYTES_PER_GB:.1f} GB"
        there = f"{short}, the profile's device has {self.memory / BYTES_PER_GB:.1f} GB"
        if self.best is None:
            return f"{there}; by this count not even one example fits"
        return f"{there} → --micro-batch {self.best.micro_batch} needs about {self.best.peak / BYTES_PER_GB:.1f} GB"


def choose_micro_batch(
    recipe: Recipe, profile: Profile, micro_batch: str | None = None
) -> tuple[Profile, MemoryPlan]:
    """The profile with the micro-batch asked for, and the memory it needs.

    Args:
        recipe: what is trained; its index and weights may be missing: then typical sizes are taken.
        profile: the machine.
        micro_batch: "auto" (the largest that fits), a number, or None: what the profile says.

    Raises:
        SettingsError: neither number nor auto; or nothing says how much fits.
    """
    if micro_batch not in (None, AUTO_MICRO_BATCH):
        profile = with_micro_batch(profile, recipe.name, _parse_micro_batch(str(micro_batch)))
    try:
        by = ElementSize(4 if profile.precision == "fp32" else 2, profile.device == "cpu")
        counted = recipe_step_memory(recipe, _count_answer_classes(recipe), by)
        memory = device_memory(profile)
    except KovqaError as error:
        if micro_batch == AUTO_MICRO_BATCH:
            raise SettingsError(f"--micro-batch auto cannot tell: {error.message}", "give a number") from None
        return profile, MemoryPlan(None, None, None, error.message)
    each = recipe.optim.global_batch // profile.processes or 1
    needs = _estimate_by_micro_batch(counted, profile, each, recipe.optim.ema_decay > 0)
    best = largest_fitting_estimate(each, memory, needs) if memory else None
    if micro_batch == AUTO_MICRO_BATCH:
        if memory is None:
            raise SettingsError("--micro-batch auto does not know this machine's memory", "give a number")
        profile = with_micro_batch(profile, recipe.name, best.micro_batch if best else 1)
    planned, _ = split_global_batch(
        recipe.optim.global_batch, profile.max_micro_batch(recipe.name), profile.processes
    )
    return profile, MemoryPlan(needs(planned), memory, best)


def with_micro_batch(profile: Profile, recipe: str, number: int) -> Profile:
    """The profile, of whose processes each holds so many examples of a recipe."""
    return profile.model_copy(update={"micro_batch": {**profile.micro_batch, recipe: number}})


def _parse_micro_batch(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"--micro-batch {text}: neither a number of examples nor auto", "like 8")
    return int(text)


def _estimate_by_micro_batch(
    counted: StepMemory, profile: Profile, each: int, averaged: bool
) -> Callable[[int], MemoryEstimate]:
    return lambda size: estimate_memory(counted, profile, size, each // size, has_ema=averaged)


def _count_answer_classes(recipe: Recipe) -> int | None:
    """Answers of the index, if it is here."""
    try:
        return len(read_answers(Path(recipe.data.index or "") / "answers.txt"))
    except KovqaError:
        return None


def device_memory(profile: Profile) -> float | None:
    """Bytes of one GPU, as the profile says or this machine; or of the memory that is free, shared by processes."""
    if profile.device == "cpu":
        free = hardware.available_memory()
        return None if free is None else free / profile.processes_per_node
    found = profile.gpu_memory_gb or min((gpu.memory_gb for gpu in hardware.visible_gpus()), default=0)
    return found * BYTES_PER_GB or None
