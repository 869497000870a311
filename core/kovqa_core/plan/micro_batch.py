"""Which micro-batch a run gets, and whether it fits into memory: on paper, before anything is started.

A number that is typed, or stands in the profile, is kept. Else a GPU's memory decides: the most that fits by the count
of `models/memory.py`. The experiment is the same at any: the global batch stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from kovqa_core.data.answers import read_answers
from kovqa_core.errors import KovqaError, SettingsError
from kovqa_core.launch.machine_check import uses_gpus_here
from kovqa_core.machine.hardware import available_memory, smallest_gpu_gb, visible_gpus
from kovqa_core.messages import Message, message
from kovqa_core.models.memory import (
    BYTES_PER_GB,
    ElementSize,
    MemoryEstimate,
    StepMemory,
    estimate_memory,
    fits_in_memory,
    is_worth_checkpointing,
    largest_fitting_estimate,
    recipe_step_memory,
)
from kovqa_core.plan.memory_plan import MemoryPlan, NumberFrom
from kovqa_core.settings.profile import CAREFUL_MICRO_BATCH, Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.resolve import ResolvedSettings
from kovqa_core.settings.run import Run, split_recipe_batch

AUTO_MICRO_BATCH = "auto"


@dataclass(frozen=True)
class _Count:
    """What steps of a recipe need on a profile, whatever its micro-batch.

    Attributes:
        step: what one step of the model holds.
        profile: of a range of nodes with the fewest, where each process has the most to hold.
        per_process: examples of one optimizer step.
        has_ema: moving averages of all weights are kept.
    """

    step: StepMemory
    profile: Profile
    per_process: int
    has_ema: bool

    def estimate(self, micro_batch: int, *, checkpointing: bool) -> MemoryEstimate:
        """What a step needs, accumulating as often as makes up a process's rows."""
        profile = self.profile.model_copy(update={"activation_checkpointing": checkpointing})
        # The process's rows stay the same: half the micro-batch is twice the accumulation, and gradients are then kept.
        return estimate_memory(
            self.step, profile, micro_batch, self.per_process // micro_batch, has_ema=self.has_ema
        )

    def largest(self, memory: float | None, *, checkpointing: bool) -> MemoryEstimate | None:
        """The estimate at the largest micro-batch that fits; None: none does, or memory is not known."""
        if memory is None:
            return None
        return largest_fitting_estimate(
            self.per_process, memory, lambda size: self.estimate(size, checkpointing=checkpointing)
        )


def choose_micro_batch(
    recipe: Recipe, profile: Profile, micro_batch: str | None = None
) -> tuple[Profile, MemoryPlan]:
    """The profile with the micro-batch that a recipe gets and with activation checkpointing on or off, and why.

    Args:
        recipe: what is trained; its index and weights may be missing: then typical sizes are taken.
        profile: the machine.
        micro_batch: "auto" (the largest that fits), a number, or None: what the profile says, else the largest.

    Raises:
        SettingsError: neither a number nor auto; nothing says how much fits; the recipe fixes another.
    """
    loss_micro_batch = recipe.optim.loss_micro_batch
    if micro_batch is not None and loss_micro_batch is not None and micro_batch != str(loss_micro_batch):
        raise _micro_batch_is_fixed(micro_batch, loss_micro_batch)
    automatic = micro_batch == AUTO_MICRO_BATCH
    if micro_batch is not None and not automatic:
        profile = with_micro_batch(profile, recipe.name, _parse_micro_batch(micro_batch))
    memory = device_memory(profile)
    if automatic and memory is None:
        raise _auto_impossible(
            message("plan.auto-without-memory", "--micro-batch auto does not know this machine's memory")
        )
    try:
        count = _count_steps(recipe, profile)
    except KovqaError as error:
        if automatic:
            raise _auto_impossible(
                message(
                    "plan.auto-cannot-count", "--micro-batch auto cannot tell: {reason}", reason=error.message
                )
            ) from None
        profile, number_from = _without_count(recipe, profile)
        return profile, MemoryPlan(None, None, None, error.message, number_from=number_from)
    is_stated = loss_micro_batch is not None or profile.stated_micro_batch(recipe.name) is not None
    if is_stated and not automatic:
        return _with_stated_number(recipe, profile, count, memory)
    if not automatic and (memory is None or profile.device == "cpu"):
        profile, _ = _without_count(recipe, profile)
        return _with_stated_number(recipe, profile, count, memory, number_from="careful")
    return _with_largest(recipe, profile, count, memory)


def _count_steps(recipe: Recipe, profile: Profile) -> _Count:
    element_size = ElementSize(4 if profile.precision == "fp32" else 2, profile.device == "cpu")
    step = recipe_step_memory(recipe, _count_answer_classes(recipe), element_size)
    fewest = profile.on_nodes(profile.node_range[0])
    per_process = recipe.optim.global_batch // fewest.processes or 1
    return _Count(step, fewest, per_process, recipe.optim.ema_decay > 0)


def _without_count(recipe: Recipe, profile: Profile) -> tuple[Profile, NumberFrom]:
    """Few examples and little kept of each, where the profile has no number; else as it says."""
    if recipe.optim.loss_micro_batch is not None or profile.stated_micro_batch(recipe.name) is not None:
        return _with_checkpointing(profile, automatic=False), "stated"
    careful = with_micro_batch(profile, recipe.name, CAREFUL_MICRO_BATCH)
    return _with_checkpointing(careful, automatic=profile.device != "cpu"), "careful"


def _with_stated_number(
    recipe: Recipe,
    profile: Profile,
    count: _Count,
    memory: float | None,
    number_from: NumberFrom = "stated",
) -> tuple[Profile, MemoryPlan]:
    """A number of the recipe, of the profile or typed: activations are checkpointed where it does not fit otherwise."""
    planned, _ = split_recipe_batch(recipe, profile.on_nodes(profile.node_range[0]))
    without = count.estimate(planned, checkpointing=False)
    too_large = memory is not None and profile.device != "cpu" and not fits_in_memory(without, memory)
    profile = _with_checkpointing(profile, automatic=too_large)
    checkpointing = profile.checkpoints_activations
    best = count.largest(memory, checkpointing=checkpointing)
    is_fixed = recipe.optim.loss_micro_batch is not None
    if is_fixed and best is not None and profile.stated_micro_batch(recipe.name) is None:
        profile = with_micro_batch(
            profile, recipe.name, best.micro_batch
        )  # what it holds, for the plan's notes
    needs = count.estimate(planned, checkpointing=checkpointing)
    plan = MemoryPlan(
        needs, memory, best, fixed=is_fixed, number_from=number_from, checkpointing=checkpointing,
        step=count.step,
    )  # fmt: skip
    return profile, plan


def _with_largest(
    recipe: Recipe, profile: Profile, count: _Count, memory: float | None
) -> tuple[Profile, MemoryPlan]:
    """The most that fits into a device."""
    without = count.largest(memory, checkpointing=False)
    with_it = count.largest(memory, checkpointing=True)
    is_worth_it = is_worth_checkpointing(count.step, without, with_it) or without is None
    profile = _with_checkpointing(profile, automatic=is_worth_it and profile.device != "cpu")
    checkpointing = profile.checkpoints_activations
    best = with_it if checkpointing else without
    # 1 where nothing fits by this count: a run whose strategy can be probed still tries it.
    profile = with_micro_batch(profile, recipe.name, best.micro_batch if best else 1)
    planned, _ = split_recipe_batch(recipe, profile.on_nodes(profile.node_range[0]))
    needs = count.estimate(planned, checkpointing=checkpointing)
    fits_without = without.micro_batch if without else 0
    plan = MemoryPlan(
        needs, memory, best, number_from="counted", checkpointing=checkpointing, fits_without=fits_without,
        step=count.step,
    )  # fmt: skip
    return profile, plan


def _with_checkpointing(profile: Profile, *, automatic: bool) -> Profile:
    """The profile with checkpointing as it says; where that is auto, as given."""
    if profile.activation_checkpointing != "auto":
        return profile
    return profile.model_copy(update={"activation_checkpointing": automatic})


def keep_recorded_micro_batch(settings: ResolvedSettings, run: Run) -> ResolvedSettings:
    """The settings with which a run goes on, with the run's own micro-batch where they state none.

    On the machine it began on, a run that goes on has the same bits only at the same micro-batch, whatever a later
    version counts.
    """
    profile, before = settings.profile, run.profile
    is_same_machine = profile.name == before.name and (profile.processes, profile.gpu_memory_gb) == (
        before.processes,
        before.gpu_memory_gb,
    )
    if not is_same_machine or profile.stated_micro_batch(run.recipe.name) is not None:
        return settings
    keys = [f"profile.micro_batch.{run.recipe.name}"]
    if profile.activation_checkpointing == "auto":
        keys.append("profile.activation_checkpointing")
        profile = _with_checkpointing(profile, automatic=before.checkpoints_activations)
    profile = with_micro_batch(profile, run.recipe.name, before.max_micro_batch(run.recipe.name))
    kept = {key: run.origin[key] for key in keys if key in run.origin}
    return replace(settings, profile=profile, origin={**settings.origin, **kept})


def micro_batch_within(run: Run, free: float) -> int:
    """The run's micro-batch, or the largest smaller one that fits into the memory which is really free.

    Args:
        run: as it was planned.
        free: bytes of one device, those of this process included.
    """
    try:
        count = _count_steps(run.recipe, run.profile)
    except KovqaError:
        return run.micro_batch
    best = count.largest(free, checkpointing=run.profile.checkpoints_activations)
    return min(run.micro_batch, best.micro_batch if best else 1)


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


def _count_answer_classes(recipe: Recipe) -> int | None:
    """Answers of the index, if it is here."""
    try:
        return len(read_answers(Path(recipe.data.index or "") / "answers.txt"))
    except KovqaError:
        return None


def device_memory(profile: Profile) -> float | None:
    """Bytes of one device; None: not known.

    Of a GPU: what the profile says, or this machine's smallest where that has less. Without one: the memory that is
    free now, shared by the processes of a node.
    """
    if profile.device == "cpu":
        # Processes of one node share its memory, where each GPU has its own.
        free = available_memory()
        return None if free is None else free / profile.processes_per_node
    stated, here = profile.gpu_memory_gb, smallest_gpu_gb(visible_gpus())
    if stated and here and uses_gpus_here(profile) and here < stated - 1:  # drivers keep some
        return here * BYTES_PER_GB
    memory_gb = stated or here
    return memory_gb * BYTES_PER_GB if memory_gb else None
