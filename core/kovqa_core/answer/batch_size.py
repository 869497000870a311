"""How many rows are answered at once, where nobody says. Counted on paper; what does not fit is halved later.

On a GPU as many as its free memory holds: a small batch leaves most of it idle. On a CPU, which is busy with one
row, a fixed number. What an answer needs is less than a training step's: nothing is kept for a backward pass but,
where an answer is written token by token, keys and values of all tokens.
"""

from __future__ import annotations

from pathlib import Path

import torch

from kovqa_core.data.decoding import DecodingOptions
from kovqa_core.errors import KovqaError
from kovqa_core.models import family_part
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.models.config import FamilyConfig, read_checkpoint_config
from kovqa_core.models.device_memory import free_memory
from kovqa_core.models.family import load_family
from kovqa_core.models.memory import ElementSize, StepMemory, answer_bytes, recipe_step_memory
from kovqa_core.runs.folder import is_huggingface_folder
from kovqa_core.settings.run import Run

_CPU_BATCH = {"vqa": 32, "caption": 16}  # and where a model cannot be counted
_MAX_GPU_BATCH = 256  # beyond, nothing becomes faster, and more is computed again after an interruption
_USABLE_FRACTION = 0.7  # of what is free; gaps between tensors and others' kernels take some
_LIST_BEAMS = 8  # texts that a vision language model follows for each row of a closed list


def choose_batch(
    folder: Path,
    info: CheckpointInfo,
    device: torch.device,
    precision: str,
    rows: int,
    workers: int,
    decoding: DecodingOptions,
) -> int:
    """Rows at once for a table.

    Args:
        folder: of the model, which is on the device already; it may be gone.
        info: of its checkpoint.
        device: where it answers.
        precision: it computes in.
        rows: to be answered.
        workers: loader processes, each of which prepares whole batches.
        decoding: how a model that writes freely answers.
    """
    task = info.task
    row_bytes = _row_bytes(folder, info, precision) if device.type == "cuda" else None
    if row_bytes is None:
        return _CPU_BATCH[task]
    row_bytes *= _LIST_BEAMS if decoding.answers else 1
    fitting = _power_of_two(_USABLE_FRACTION * free_memory(device) / row_bytes)
    # A batch for every loader at least: one that prepares all rows of a small table is slower than the model.
    shared = max(_CPU_BATCH[task], rows // max(1, workers))
    return max(1, min(fitting, _MAX_GPU_BATCH, _power_of_two(shared)))


def _power_of_two(number: float) -> int:
    """The largest one that is not above it; 0 below 1."""
    return 1 << int(number).bit_length() - 1 if number >= 1 else 0


def _row_bytes(folder: Path, info: CheckpointInfo, precision: str) -> float | None:
    """Bytes that one row needs; None: not to be counted."""
    if is_huggingface_folder(folder):
        return None  # its config.json is another library's
    try:
        config_class: type[FamilyConfig] = family_part(info.family, "ModelConfig")
        config = read_checkpoint_config(config_class, folder, info.family)
        by = ElementSize(4 if precision == "fp32" else 2, False)
        step: StepMemory = family_part(info.family, "COUNT_STEP_MEMORY")(config, info.task, None, by)
    except KovqaError:
        return None
    return answer_bytes(step, writes=_writes(info.family, info.task))


def _writes(family: str, task: str) -> bool:
    """Does it write answers token by token?"""
    return task == "caption" or load_family(family).set_decoding is not None


def evaluation_batch(run: Run) -> int:
    """Rows at once for a process that evaluates while it trains: what takes no more than a micro-batch's gradients.

    From what the run says alone: after a resume the same, whatever is free then. On a CPU a micro-batch.
    """
    profile = run.profile
    if profile.device != "cuda":
        return run.micro_batch
    try:
        by = ElementSize(4 if profile.precision == "fp32" else 2, False)
        step = recipe_step_memory(run.recipe, None, by)
    except KovqaError:
        return run.micro_batch
    kept = step.checkpointed + step.layer if profile.checkpoints_activations else step.activations
    training = kept + step.logits + step.temporary
    times = training / answer_bytes(step, writes=_writes(run.recipe.family, run.recipe.task))
    return max(run.micro_batch, min(_MAX_GPU_BATCH, int(run.micro_batch * times)))
