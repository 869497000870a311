"""Which micro-batch a run gets, and whether its memory will do: on paper, before anything is started."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovqa_core.data.answers import read_answers
from kovqa_core.errors import KovqaError, SettingsError
from kovqa_core.machine import hardware
from kovqa_core.models import FAMILIES
from kovqa_core.models.memory import GB, Estimate, Sizes, Width, estimate, fits, largest
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.run import batch_plan
from kovqa_core.settings.strict_yaml import Document, build

AUTO = "auto"


@dataclass(frozen=True)
class Fit:
    """What a run needs of each device, and what there is.

    Attributes:
        needs: at the planned micro-batch; None: it cannot be counted.
        memory: bytes of one device; None: not known.
        best: at the largest micro-batch that fits; None: none does, or it is not known.
        unknown: why it cannot be counted; empty where it can.
    """

    needs: Estimate | None
    memory: float | None
    best: Estimate | None
    unknown: str = ""

    @property
    def warning(self) -> str:
        """That memory will hardly do, and what would; empty where it does."""
        if self.needs is None or self.memory is None or fits(self.needs, self.memory):
            return ""
        short = f"micro-batch {self.needs.micro_batch} needs about {self.needs.peak / GB:.1f} GB"
        there = f"{short}, the profile's device has {self.memory / GB:.1f} GB"
        if self.best is None:
            return f"{there}; by this count not even one example fits"
        return f"{there} → --micro-batch {self.best.micro_batch} needs about {self.best.peak / GB:.1f} GB"


def fit(recipe: Recipe, profile: Profile, micro_batch: str | None = None) -> tuple[Profile, Fit]:
    """The profile with the micro-batch asked for, and the memory it needs.

    Args:
        recipe: what is trained; its index and weights may be missing: then typical sizes are taken.
        profile: the machine.
        micro_batch: "auto" (the largest that fits), a number, or None: what the profile says.

    Raises:
        SettingsError: neither number nor auto; or nothing says how much fits.
    """
    if micro_batch not in (None, AUTO):
        profile = holding(profile, recipe.name, _number(str(micro_batch)))
    try:
        counted, memory = sizes(recipe, profile), device_memory(profile)
    except KovqaError as error:
        if micro_batch == AUTO:
            raise SettingsError(f"--micro-batch auto cannot tell: {error.message}", "give a number") from None
        return profile, Fit(None, None, None, error.message)
    each = recipe.optim.global_batch // profile.processes or 1
    needs = _needs(counted, profile, each, recipe.optim.ema_decay > 0)
    best = largest(each, memory, needs) if memory else None
    if micro_batch == AUTO:
        if memory is None:
            raise SettingsError("--micro-batch auto does not know this machine's memory", "give a number")
        profile = holding(profile, recipe.name, best.micro_batch if best else 1)
    planned, _ = batch_plan(recipe.optim.global_batch, profile.holds(recipe.name), profile.processes)
    return profile, Fit(needs(planned), memory, best)


def holding(profile: Profile, recipe: str, number: int) -> Profile:
    """The profile, of whose processes each holds so many examples of a recipe."""
    return profile.model_copy(update={"micro_batch": {**profile.micro_batch, recipe: number}})


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"--micro-batch {text}: neither a number of examples nor auto", "like 8")
    return int(text)


def _needs(counted: Sizes, profile: Profile, each: int, averaged: bool) -> Callable[[int], Estimate]:
    return lambda size: estimate(counted, profile, size, each // size, averaged)


def sizes(recipe: Recipe, profile: Profile) -> Sizes:
    """What one training step of a recipe holds on a profile.

    Raises:
        KovqaError: it cannot be counted; says why.
    """
    module = FAMILIES[recipe.family]
    settings: Any = importlib.import_module(f"{module}.config").Config
    config = build(settings, Document({"model": recipe.model}, {(): f"recipe {recipe.name}"}), ("model",))
    by = Width(4 if profile.precision == "fp32" else 2, profile.device == "cpu")
    found: Sizes = importlib.import_module(f"{module}.memory").sizes(
        config, recipe.task, _classes(recipe), by
    )
    return found


def _classes(recipe: Recipe) -> int | None:
    """Answers of the index, if it is here."""
    try:
        return len(read_answers(Path(recipe.data.index or "") / "answers.txt"))
    except KovqaError:
        return None


def device_memory(profile: Profile) -> float | None:
    """Bytes of one GPU, as the profile says or this machine; or of the memory that is free, shared by processes."""
    if profile.device == "cpu":
        free = hardware.free_memory()
        return None if free is None else free / profile.processes_per_node
    found = profile.gpu_memory_gb or min((gpu.memory_gb for gpu in hardware.gpus()), default=0)
    return found * GB or None
