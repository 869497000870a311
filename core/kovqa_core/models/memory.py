"""How much memory one training step needs, by arithmetic: no torch, no weights read.

A family says what one step of its model holds (`Sizes`, from `models/<family>/sizes.py`); here it is
shared out over processes and laid one on the other in time. Everything is in bytes until it is shown.
What is not counted: CUDA's own context, what cuDNN and NCCL borrow, and gaps between tensors.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

from kovqa_core.models.config import ConfigType, FamilyConfig, family_modules, recipe_model_config
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe

BYTES_PER_GB = 2**30  # as nvidia-smi counts, and profiles
USABLE_FRACTION = 0.9  # share of a device's memory that tensors may fill: the rest is what is not counted
TYPICAL_CLASSES = 3129  # answers, where no index says how many: VQAv2's
_ADAMW_BYTES = 8  # bytes AdamW keeps of a number that learns: two moments in 32 bits


@dataclass(frozen=True)
class ElementSize:
    """Bytes of one number, where autocast works in 16 bits and where it does not.

    It makes products in 16 bits; sums, like the residual stream, stay in 32.

    Attributes:
        product: of a result of a product, and of what one reads.
        cpu: on a CPU, whose kernels keep other things than a GPU's.
    """

    product: int
    cpu: bool

    @property
    def norm(self) -> int:
        """Of what a LayerNorm reads: a GPU's autocast raises it to 32 bits and keeps that copy."""
        return self.product if self.cpu else 4

    @property
    def dropout(self) -> int:
        """Of the mask dropout keeps: a CPU's is of numbers, a GPU's of bytes."""
        return self.product if self.cpu else 1


@dataclass(frozen=True)
class StepMemory:
    """What a model's training step holds, in bytes unless said otherwise; `one` means of one example.

    Attributes:
        weights: all parameters, as they lie in memory.
        parameters: how many numbers they are.
        learned: how many of them learn, each in 32 bits.
        casts: 16-bit copies autocast makes of 32-bit weights, kept until they are used backward.
        kept: activations of one example kept from forward to backward.
        checkpointed: the same with activation checkpointing.
        layer: of one example: what the largest layer keeps alone.
        logits: of one example: its scores, and what loss and its gradient make of them.
        temporary: of one example: the largest results that live only for a moment.
        early: learned numbers whose gradients come while nearly all activations are still there, like
            those of a CNN: its deep layers have most of the weights, its first ones most activations.
    """

    weights: float
    parameters: int
    learned: int
    casts: float
    kept: float
    checkpointed: float
    layer: float
    logits: float
    temporary: float
    early: int = 0


# Counts a step of one family's model, from: its settings, the task ("vqa" or "caption"), the number of
# answer classes (None: not known), the bytes of numbers. Each family's `COUNT_STEP_MEMORY` is one.
CountStepMemory = Callable[[ConfigType, str, int | None, ElementSize], StepMemory]


def recipe_step_memory(recipe: Recipe, classes: int | None, by: ElementSize) -> StepMemory:
    """What one training step of a recipe's model holds.

    Args:
        recipe: what is trained.
        classes: answers of its index; None: not known, a typical number is taken.
        by: bytes of numbers, as the profile says.

    Raises:
        KovqaError: it cannot be counted; says why.
    """
    module = importlib.import_module(family_modules(recipe.family).memory)
    count: CountStepMemory[FamilyConfig] = module.COUNT_STEP_MEMORY
    return count(recipe_model_config(recipe), recipe.task, classes, by)


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one process at its fullest, in bytes.

    The parts do not lie there all at once: without accumulation gradients come while activations go.
    """

    micro_batch: int
    peak: float
    weights: float
    gradients: float
    optimizer: float
    averages: float
    activations: float
    logits: float
    workspace: float

    @property
    def parts(self) -> dict[str, float]:
        """Name of a part -> bytes."""
        return {name: value for name, value in asdict(self).items() if name not in ("micro_batch", "peak")}


def estimate_memory(
    sizes: StepMemory, profile: Profile, micro_batch: int, accumulate: int = 1, averaged: bool = False
) -> MemoryEstimate:
    """Memory of one process of a run.

    Args:
        sizes: what the model's step holds.
        profile: number of processes, how they share states, activation checkpointing.
        micro_batch: examples of one forward pass.
        accumulate: forward passes of an optimizer step.
        averaged: averages of all weights are kept beside them.
    """
    # What a strategy shares out among all processes (arXiv 1910.02054, section 5).
    by, all_of = profile.strategy, profile.processes
    shared_states = all_of if by != "ddp" else 1
    shared_gradients = all_of if by in ("zero2", "zero3", "fsdp2") else 1
    shared_weights = all_of if by in ("zero3", "fsdp2") else 1
    again = profile.activation_checkpointing
    activations = micro_batch * (sizes.checkpointed if again else sizes.kept)
    logits = micro_batch * sizes.logits
    one_layer, passing = micro_batch * sizes.layer, micro_batch * sizes.temporary
    workspace = max(sizes.casts, one_layer + passing) if again else sizes.casts + passing
    weights = sizes.weights / shared_weights
    gradients = 4 * sizes.learned / shared_gradients
    optimizer = _ADAMW_BYTES * sizes.learned / shared_states
    averages = 4.0 * sizes.parameters * averaged
    states = weights + optimizer + averages
    forward = activations + logits + workspace
    if all_of > 1 or accumulate > 1:  # gradients of the pass before, or the buckets of DDP
        peak = states + gradients + forward
    else:
        peak = states + max(forward + 4 * sizes.early, gradients + one_layer)
    return MemoryEstimate(
        micro_batch, peak, weights, gradients, optimizer, averages, activations, logits, workspace
    )


def largest_fitting_estimate(
    each: int, memory: float, needs: Callable[[int], MemoryEstimate]
) -> MemoryEstimate | None:
    """The estimate at the largest micro-batch that fits.

    Args:
        each: examples of one process per optimizer step: micro-batches divide it.
        memory: bytes of the device.
        needs: micro-batch -> estimate.

    Returns:
        None: not even one example fits.
    """
    for size in (size for size in range(each, 0, -1) if each % size == 0):
        found = needs(size)
        if fits_in_memory(found, memory):
            return found
    return None


def fits_in_memory(found: MemoryEstimate, memory: float) -> bool:
    """Does it go into so many bytes, with room for what is not counted?"""
    return found.peak <= USABLE_FRACTION * memory
