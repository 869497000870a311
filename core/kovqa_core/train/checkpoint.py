"""Step folders: a model anyone can take away, and what resuming needs beside it.

    RUN/step-001200/   kovqa.json, config.json, model.safetensors, answers.txt, tokenizer/
    RUN/step-001200/trainer/   state.json, optimizer.safetensors (and weights.safetensors when the
                       model's are averaged ones); delete it to publish
    RUN/last, RUN/best         one line: the name of a step folder

Randomness is a function of seed, epoch and example, so there is no generator's state to keep.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kovqa_core.errors import ModelError
from kovqa_core.files import read_json, write_folder, write_json, write_text
from kovqa_core.models import family
from kovqa_core.models.batches import ExampleProcessor
from kovqa_core.models.checkpoint_info import CheckpointInfo, read_checkpoint_info, write_checkpoint_info
from kovqa_core.runs.folder import follow_pointer
from kovqa_core.train.strategies.ddp import LocalShards, LossScaler, TrainStrategy


@dataclass
class TrainProgress:
    """Where a run is: after how many optimizer steps, and the best so far."""

    step: int = 0
    score: float | None = None  # of the latest evaluation
    best: float | None = None
    best_step: int | None = None
    scale: dict[str, Any] | None = None  # of the loss, in fp16
    evaluation_due: bool = False  # this step is to be evaluated; in the file only as long as it is true


def write_checkpoint(
    folder: Path,
    stepper: TrainStrategy,
    processor: ExampleProcessor,
    averages: LocalShards | None,
    state: TrainProgress,
    info: CheckpointInfo,
    keep: int,
) -> Path:
    """Write a step folder, point to it, remove the oldest ones.

    All processes come here, for what is cut up is put together; the first one writes.

    Raises:
        MachineError: the disk is full; earlier checkpoints are untouched.
    """
    path = folder / f"step-{state.step:06d}"
    state.scale = asdict(stepper.scale) if stepper.scale.dynamic else None

    def fill(part: Path) -> None:
        trainer = part / "trainer"
        if stepper.rank.first:
            trainer.mkdir()
            _write_state(trainer, state)
        if averages is not None:
            with stepper.plain(None, everywhere=False) as model:
                if model is not None:
                    save_file(dict(model.state_dict()), trainer / "weights.safetensors")
        with stepper.plain(averages, everywhere=False) as model:
            if model is not None:
                family.write_model_folder(
                    model, processor, part, replace(info, step=state.step, score=state.score)
                )
        moments = stepper.moments()
        if stepper.rank.first:
            save_file(moments, trainer / "optimizer.safetensors")

    if not stepper.rank.first:
        fill(path)
        return path
    last = follow_pointer(folder, "last")
    kept = f"the checkpoint {last.name} is still whole" if last else "there is no earlier checkpoint"
    write_folder(path, fill, kept)
    write_text(folder / "last", path.name + "\n")
    _point_to_best(folder, path, state, keep)
    return path


def record_evaluation(folder: Path, state: TrainProgress, keep: int) -> None:
    """Put a step's score into its folder, which was written before it was evaluated; the first process does.

    Args:
        folder: of the run.
        state: with the score; it is no longer due.
        keep: so many step folders, and the best, stay.

    Raises:
        MachineError: the disk is full; the checkpoint is whole, and its evaluation still due.
    """
    path = folder / f"step-{state.step:06d}"
    write_checkpoint_info(path, replace(read_checkpoint_info(path), score=state.score))
    _point_to_best(folder, path, state, keep)
    _write_state(path / "trainer", state)  # last: killed before it, the step is evaluated once more


def _write_state(trainer: Path, state: TrainProgress) -> None:
    values = asdict(state)
    if not state.evaluation_due:
        del values["evaluation_due"]
    write_json(trainer / "state.json", values)


def _point_to_best(folder: Path, path: Path, state: TrainProgress, keep: int) -> None:
    """Let `best` name a step folder if it is the best, or the first; remove what is neither new nor best."""
    if state.best_step == state.step or follow_pointer(folder, "best") is None:
        write_text(folder / "best", path.name + "\n")
    for old in checkpoints_to_remove(
        sorted(p.name for p in folder.glob("step-??????")), keep, follow_pointer(folder, "best")
    ):
        shutil.rmtree(folder / old, ignore_errors=True)


def checkpoints_to_remove(names: list[str], keep: int, best: Path | None) -> list[str]:
    """Which of the step folders (sorted) go: all but the newest `keep` and the best."""
    return [name for name in names[:-keep] if best is None or name != best.name]


@dataclass(frozen=True)
class ResumeState:
    """What a step folder holds beside the model: whole tensors, whatever number of processes wrote them."""

    path: Path | None = None
    state: TrainProgress = field(default_factory=TrainProgress)
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    averages: Mapping[str, Tensor] | None = None


def read_resume_state(path: Path, model: Any, averaged: bool) -> ResumeState:
    """Read what resuming needs; the model itself was loaded from the folder.

    Args:
        path: the step folder.
        model: whole, as the folder has it; where averages are kept it gets the weights that learn.
        averaged: does this run keep averages?

    Raises:
        ModelError: the folder was published without what resuming needs, or that is broken.
    """
    trainer = path / "trainer"
    if not (trainer / "state.json").is_file():
        raise ModelError(f"{path} has no trainer folder: it cannot be resumed", "start a new run from it")
    try:
        averages = None
        if averaged:
            averages = {name: p.detach().clone() for name, p in model.named_parameters()}
            model.load_state_dict(load_file(trainer / "weights.safetensors"))
        moments = load_file(trainer / "optimizer.safetensors")
        return ResumeState(path, TrainProgress(**read_json(trainer / "state.json")), moments, averages)
    except (OSError, RuntimeError, TypeError, SafetensorError) as error:
        raise _broken_checkpoint(path, error) from None


def restore_strategy(stepper: TrainStrategy, before: ResumeState) -> LocalShards | None:
    """Bring moments and loss scale back; the averages, if the run keeps any.

    Raises:
        ModelError: they are not this model's.
    """
    try:
        stepper.load_moments(before.moments)
        if before.state.scale and stepper.scale.dynamic:
            stepper.scale = LossScaler(**before.state.scale)
    except (RuntimeError, KeyError, TypeError) as error:
        raise _broken_checkpoint(before.path, error) from None
    if not stepper.run.recipe.optim.ema_decay:
        return None
    if before.averages is None:
        return {name: piece.clone() for name, piece in stepper.pieces().items()}
    return {name: stepper.cut(name, whole) for name, whole in before.averages.items()}


def _broken_checkpoint(path: Path | None, error: Exception) -> ModelError:
    return ModelError(f"{path}/trainer cannot be read ({error})", "remove that step folder")


@torch.no_grad()
def update_ema(averages: LocalShards, pieces: LocalShards, decay: float) -> None:
    """One step of the moving average."""
    torch._foreach_lerp_(list(averages.values()), list(pieces.values()), 1 - decay)
