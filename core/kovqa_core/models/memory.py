"""How much memory one training step needs, by arithmetic: no torch, no weights read.

A family counts what one step of its model holds (`StepMemory`, from its `memory.py`); here that is divided
among processes and added up at the moment of the step when most of it is there. Everything is in bytes
until it is shown. Not counted: CUDA's own context, what cuDNN and NCCL take, and gaps between tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from kovqa_core.models import family_part
from kovqa_core.models.config import ConfigType, FamilyConfig, recipe_model_config
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe

BYTES_PER_GB = 2**30  # as nvidia-smi counts, and profiles
USABLE_FRACTION = 0.9  # of a device's memory that tensors may fill: the rest is what is not counted
TYPICAL_CLASSES = 3129  # answers, where no index says how many: VQAv2's
_ADAMW_BYTES = 8  # that AdamW keeps of a number that learns: two moments in fp32


@dataclass(frozen=True)
class ElementSize:
    """Bytes of one number, where autocast works in 16 bits and where it does not.

    Autocast makes products in 16 bits; sums, like the residual stream, stay in fp32.

    Attributes:
        product_bytes: of what a product gives, and of what it reads.
        is_cpu: on a CPU, whose kernels keep other things than a GPU's.
    """

    product_bytes: int
    is_cpu: bool

    @property
    def norm_bytes(self) -> int:
        """Of what a LayerNorm reads: a GPU's autocast raises it to fp32 and keeps that copy."""
        return self.product_bytes if self.is_cpu else 4

    @property
    def dropout_mask_bytes(self) -> int:
        """Of the mask that dropout keeps: a CPU's is of numbers, a GPU's of bytes."""
        return self.product_bytes if self.is_cpu else 1


@dataclass(frozen=True)
class StepMemory:
    """What a model's training step holds, in bytes unless said otherwise.

    Attributes:
        weights: all parameters, in the form they are stored.
        parameters: how many numbers they are.
        learned: how many of them learn, each in fp32.
        casts: 16-bit copies that autocast makes of fp32 weights, kept until the backward pass has used them.
        activations: of one example, kept from forward to backward.
        checkpointed: the same with activation checkpointing.
        layer: of one example: what the largest layer keeps alone.
        logits: of one example: its logits, and what the loss and its gradient make of them.
        temporary: of one example: the largest results that live only for a moment.
        early: learned numbers whose gradients come while nearly all activations are still there, like
            those of a CNN: its deep layers have most of the weights, its first ones most activations.
    """

    weights: float
    parameters: int
    learned: int
    casts: float
    activations: float
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
    count: CountStepMemory[FamilyConfig] = family_part(recipe.family, "COUNT_STEP_MEMORY")
    return count(recipe_model_config(recipe), recipe.task, classes, by)


def answer_bytes(step: StepMemory, *, writes: bool) -> float:
    """What one example needs without gradients, by the count of a training step, from above.

    Args:
        step: of the model.
        writes: are keys and values of all layers kept? What checkpointing keeps of a layer is at least as large.
    """
    kept = step.checkpointed if writes else 0.0
    return kept + step.layer + step.temporary + step.logits


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one process at its fullest, in bytes.

    `peak` is less than the sum of the others: without accumulation gradients come while activations go.
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
    def components(self) -> dict[str, float]:
        """Name of what is held -> bytes."""
        return {name: value for name, value in asdict(self).items() if name not in ("micro_batch", "peak")}


def estimate_memory(
    step: StepMemory, profile: Profile, micro_batch: int, accumulate: int = 1, *, has_ema: bool = False
) -> MemoryEstimate:
    """Memory of one process of a run.

    Args:
        step: what the model's step holds.
        profile: number of processes, their strategy, activation checkpointing.
        micro_batch: examples of one forward pass.
        accumulate: forward passes of an optimizer step.
        has_ema: moving averages of all weights are kept beside them.
    """
    # What a strategy divides among all processes (arXiv 1910.02054, section 5).
    by, world = profile.strategy, profile.processes
    shards_states = world if by != "ddp" else 1
    shards_gradients = world if by in ("zero2", "zero3", "fsdp2") else 1
    shards_weights = world if by in ("zero3", "fsdp2") else 1
    checkpointing = profile.checkpoints_activations
    activations = micro_batch * (step.checkpointed if checkpointing else step.activations)
    logits = micro_batch * step.logits
    one_layer, passing = micro_batch * step.layer, micro_batch * step.temporary
    # With checkpointing a layer's activations are there twice for a moment: computed again, one by one.
    workspace = max(step.casts, one_layer + passing) if checkpointing else step.casts + passing
    weights = 0.0 if profile.offload_param == "cpu" else step.weights / shards_weights
    gradients = 4 * step.learned / shards_gradients
    # What lies in the machine's memory takes none of the device's: moments, and the gradients that go to them.
    is_offloaded = profile.offload_optimizer == "cpu"
    optimizer = 0.0 if is_offloaded else _ADAMW_BYTES * step.learned / shards_states
    averages = 4.0 * step.parameters * has_ema
    states = weights + optimizer + averages
    forward = activations + logits + workspace
    if world > 1 or accumulate > 1:  # gradients of the pass before, or the buckets of DDP
        peak = states + gradients + forward
    else:
        # Either the end of the forward pass, or that of the backward pass: no activations, all gradients.
        peak = states + max(forward + 4 * step.early, gradients + one_layer)
    return MemoryEstimate(
        micro_batch, peak, weights, gradients, optimizer, averages, activations, logits, workspace
    )


def largest_fitting_estimate(
    rank_batch: int, memory: float, estimate_for: Callable[[int], MemoryEstimate]
) -> MemoryEstimate | None:
    """The estimate at the largest micro-batch that fits.

    Args:
        rank_batch: examples of one process per optimizer step: a micro-batch divides it.
        memory: bytes of the device.
        estimate_for: micro-batch -> estimate.

    Returns:
        None: not even one example fits.
    """
    for micro_batch in (size for size in range(rank_batch, 0, -1) if rank_batch % size == 0):
        estimate = estimate_for(micro_batch)
        if fits_in_memory(estimate, memory):
            return estimate
    return None


def is_worth_checkpointing(
    step: StepMemory, without: MemoryEstimate | None, with_it: MemoryEstimate | None
) -> bool:
    """Is more done per second if activations are computed twice, at the largest micro-batches that fit?

    It makes a pass a third longer. A pass also costs what does not depend on its examples: gradients are added up,
    and weights copied to 16 bits. So it is worth it only where that fixed cost is more than a third of the time, for
    which the bytes of both are taken: memory traffic is most of a step's time.

    Args:
        step: what the model's step holds.
        without, with_it: at the largest micro-batch that fits; None: none does.
    """
    if with_it is None or (without is not None and without.micro_batch >= with_it.micro_batch):
        return False
    return without is None or without.activations < 4 * step.learned + step.casts


def fits_in_memory(estimate: MemoryEstimate, memory: float) -> bool:
    """Does it fit into so many bytes, with room for what is not counted?"""
    return estimate.peak <= USABLE_FRACTION * memory
