"""A training step that does not fit into memory: an error that names the micro-batch which would, and the command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from kovqa_core.errors import MachineError, SettingsError
from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.models.device_memory import out_of_memory_text
from kovqa_core.models.memory import BYTES_PER_GB
from kovqa_core.plan.micro_batch import choose_micro_batch
from kovqa_core.settings.run import Run, split_recipe_batch
from kovqa_core.train.state import TrainState


@contextlib.contextmanager
def training_memory_errors(state: TrainState) -> Iterator[None]:
    """A step that runs out of memory ends with an error that says what would fit.

    Raises:
        MachineError: memory is used up.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not out_of_memory_text(error):
            raise
        raise out_of_memory_error(state.run, state.progress.step, state.device, error) from error


def out_of_memory_error(run: Run, step: int, device: torch.device, error: BaseException) -> MachineError:
    """The error of a step that does not fit.

    Args:
        run: what is trained.
        step: optimizer steps done.
        device: whose memory is used up.
        error: what the library said.
    """
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    problem = message(
        "train.out-of-memory",
        "out of memory after {step} steps: micro-batch {micro_batch} on {device} ({reason})",
        step=step,
        micro_batch=run.micro_batch,
        device=_describe_device(device),
        reason=reason,
    )
    return MachineError(problem, _out_of_memory_hint(run, smaller_micro_batch(run)))


def smaller_micro_batch(run: Run) -> int | None:
    """The largest micro-batch, at most half of this one, that fits by the count; None: there is no smaller one.

    At most half, for the count was wrong about this one, or others use the same memory.
    """
    if run.micro_batch == 1 or run.recipe.optim.loss_micro_batch is not None:
        return None
    with contextlib.suppress(SettingsError):  # it cannot be counted
        _, plan = choose_micro_batch(run.recipe, run.profile)
        if plan.best is not None and plan.best.micro_batch < run.micro_batch // 2:
            return plan.best.micro_batch
    size = run.micro_batch // 2
    profile = run.profile.model_copy(update={"micro_batch": {run.recipe.name: size}})
    return split_recipe_batch(run.recipe, profile)[0]


def _out_of_memory_hint(run: Run, fitting: int | None) -> Message:
    folder = shell_quote(run.folder)
    if fitting is not None:
        return message(
            "train.out-of-memory.hint",
            "micro-batch {micro_batch} would fit, and learns the same: kovqa train --resume -o {folder} "
            "--micro-batch {micro_batch}",
            micro_batch=fitting,
            folder=folder,
        )
    if not run.profile.checkpoints_activations:
        return message(
            "train.out-of-memory-checkpointing.hint",
            "compute activations twice, which learns the same: kovqa train --resume -o {folder} "
            "--set profile.activation_checkpointing=true",
            folder=folder,
        )
    return message(
        "train.out-of-memory-larger.hint",
        "shard the model over several GPUs (--set profile.strategy=fsdp2), or take a smaller one or a machine with "
        "more memory; then go on: kovqa train --resume -o {folder}",
        folder=folder,
    )


def _describe_device(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    gpu = torch.cuda.get_device_properties(device)
    return f"{gpu.name}, {gpu.total_memory / BYTES_PER_GB:.0f} GB"
