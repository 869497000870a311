"""Step folders: a model anyone can take away, and beside it what resuming needs.

    RUN/step-001200/   kovqa.json, config.json, model.safetensors, answers.txt, tokenizer/
    RUN/step-001200/trainer/   state.json, optimizer.safetensors, files.json (and weights.safetensors when
                       the model's are averaged ones); delete it to publish
    RUN/last, RUN/best         one line: the name of a step folder

Randomness is a function of seed, epoch and example, so there is no generator's state to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kovqa_core.errors import DataError, ModelError
from kovqa_core.files import json_text, read_json, write_json, write_text
from kovqa_core.messages import message, shell_quote
from kovqa_core.models import family
from kovqa_core.models.batches import ExampleProcessor
from kovqa_core.models.checkpoint_info import CheckpointInfo, read_checkpoint_info, write_checkpoint_info
from kovqa_core.runs.checksums import allow_contents, note_files
from kovqa_core.runs.folder import follow_pointer
from kovqa_core.runs.step_folders import WRITTEN_AGAIN, list_step_folders, step_number
from kovqa_core.runs.step_lease import remove_unread_step
from kovqa_core.settings.recipe import Recipe
from kovqa_core.train.strategies.base import LocalShards, LossScaler, TrainStrategy
from kovqa_core.whole_folder import write_folder


@dataclass
class TrainProgress:
    """How far a run is, and the best so far.

    Attributes:
        step: optimizer steps done.
        score: of the latest evaluation.
        best, best_step: the best score, and the step that has it.
        loss_scale: in fp16 only.
        evaluation_due: this step is to be evaluated.
    """

    step: int = 0
    score: float | None = None
    best: float | None = None
    best_step: int | None = None
    loss_scale: LossScaler | None = None
    evaluation_due: bool = False

    def to_json(self) -> dict[str, object]:
        """The contents of `state.json`; `evaluation_due` only as long as it is true, as earlier versions had no such key."""
        values = asdict(self)
        values["scale"] = values.pop("loss_scale")
        if not values["evaluation_due"]:
            del values["evaluation_due"]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainProgress:
        """The progress of a `state.json`.

        Raises:
            TypeError: a key is unknown, of a later version.
        """
        scale = values.get("scale")
        others = {key: value for key, value in values.items() if key != "scale"}
        return cls(**others, loss_scale=LossScaler(**scale) if scale else None)


def write_checkpoint(
    folder: Path,
    strategy: TrainStrategy,
    processor: ExampleProcessor,
    averages: LocalShards | None,
    progress: TrainProgress,
    recipe: Recipe,
) -> Path:
    """Write a step folder, point to it, remove the oldest ones. Collective: all processes must come here.

    Shards are put together by all processes; the first one writes.

    Returns:
        The step folder.

    Raises:
        MachineError: the disk is full; earlier checkpoints are untouched.
    """
    path = folder / f"step-{progress.step:06d}"
    progress.loss_scale = strategy.loss_scaler if strategy.loss_scaler.dynamic else None
    info = CheckpointInfo(recipe.family, recipe.task, recipe.name, step=progress.step, score=progress.score)

    def fill(unfinished: Path) -> None:
        _fill_step_folder(unfinished, strategy, processor, averages, progress, info)

    if not strategy.rank.is_main_process:
        fill(path)  # takes part in the collectives, and writes nothing
        return path
    last = follow_pointer(folder, "last")
    if last:
        note = message("train.last-checkpoint-whole", "the checkpoint {step} is still whole", step=last.name)
    else:
        note = message("train.no-earlier-checkpoint", "there is no earlier checkpoint")
    # Pointers only once the folder is whole, and older folders go only once both pointers are right: killed
    # at any line, `last` and `best` name folders that exist.
    write_folder(path, fill, note)
    write_text(folder / "last", path.name + "\n")
    _point_to_best(folder, path, progress, recipe.save.keep)
    return path


def _fill_step_folder(
    folder: Path,
    strategy: TrainStrategy,
    processor: ExampleProcessor,
    averages: LocalShards | None,
    progress: TrainProgress,
    info: CheckpointInfo,
) -> None:
    """Write model and training state into an unfinished folder. Arguments as of `write_checkpoint`.

    The collective calls stand in one order for all processes; only the first one writes.
    """
    trainer = folder / "trainer"
    if strategy.rank.is_main_process:
        trainer.mkdir()
        _write_progress(trainer, progress)
    if averages is not None:
        # The model folder gets the averages, which people take away; training goes on with these.
        with strategy.full_model(None, everywhere=False) as model:
            if model is not None:
                save_file(dict(model.state_dict()), trainer / "weights.safetensors")
    with strategy.full_model(averages, everywhere=False) as model:
        if model is not None:
            family.write_model_folder(model, processor, folder, info)
    moments = strategy.full_moments()
    if strategy.rank.is_main_process:
        save_file(moments, trainer / "optimizer.safetensors")
        note_files(folder)


def record_evaluation(folder: Path, progress: TrainProgress, keep: int) -> None:
    """Put a step's score into its folder, which was written before it was evaluated; the first process does.

    Args:
        folder: of the run.
        progress: with the score; its evaluation is no longer due.
        keep: so many step folders, and the best, stay.

    Raises:
        MachineError: the disk is full; the checkpoint is whole, and its evaluation still due.
    """
    path = folder / f"step-{progress.step:06d}"
    info = replace(read_checkpoint_info(path), score=progress.score)
    contents = [json_text(values).encode() for values in (info.to_json(), progress.to_json())]
    allow_contents(path, dict(zip(WRITTEN_AGAIN, contents, strict=True)))
    write_checkpoint_info(path, info)
    _point_to_best(folder, path, progress, keep)
    _write_progress(path / "trainer", progress)  # last: killed before it, the step is evaluated once more


def _write_progress(trainer: Path, progress: TrainProgress) -> None:
    write_json(trainer / "state.json", progress.to_json())


def _point_to_best(folder: Path, path: Path, progress: TrainProgress, keep: int) -> None:
    """Let `best` name a step folder if it is the best, or the first; remove what is neither new nor best."""
    if progress.best_step == progress.step or follow_pointer(folder, "best") is None:
        best = folder / f"step-{progress.best_step or 0:06d}"  # another one only where the pointer was lost
        write_text(folder / "best", (best if best.is_dir() else path).name + "\n")
    steps = [step.name for step in list_step_folders(folder)]
    for name in checkpoints_to_remove(steps, keep, follow_pointer(folder, "best"), path.name):
        remove_unread_step(folder / name)


def checkpoints_to_remove(names: list[str], keep: int, best: Path | None, newest: str) -> list[str]:
    """Which of the step folders (oldest first) go: all but the newest `keep` and the best.

    Those beyond the newest, from before the run went back to an earlier one, neither go nor count: by their
    numbers they would take the place of what was just written.
    """
    reached = [name for name in names if step_number(name) <= step_number(newest)]
    return [name for name in reached[:-keep] if best is None or name != best.name]


@dataclass(frozen=True)
class ResumeState:
    """What a step folder holds beside the model: full tensors, whatever number of processes wrote them.

    Attributes:
        path: the step folder; None for a run that begins.
        progress: how far the run is.
        moments: of AdamW, by parameter name; see `TrainStrategy.full_moments`.
        averages: moving averages of the weights, by parameter name; None: none are kept, or none yet.
    """

    path: Path | None = None
    progress: TrainProgress = field(default_factory=TrainProgress)
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    averages: Mapping[str, Tensor] | None = None


def read_resume_state(path: Path, model: torch.nn.Module, *, keeps_averages: bool) -> ResumeState:
    """Read what resuming needs; the model itself was loaded from the folder.

    Args:
        path: the step folder, whole as `find_resume_point` says.
        model: full, as the folder has it; where averages are kept it gets the weights that learn.
        keeps_averages: does this run keep averages?

    Raises:
        ModelError: what resuming needs is broken.
    """
    trainer = path / "trainer"
    try:
        averages = None
        if keeps_averages:
            # The folder's model is the averaged one, because that is what people take away.
            averages = {name: p.detach().clone() for name, p in model.named_parameters()}
            model.load_state_dict(load_file(trainer / "weights.safetensors"))
        moments = load_file(trainer / "optimizer.safetensors")
        progress = TrainProgress.from_json(read_json(trainer / "state.json"))
    except (OSError, RuntimeError, TypeError, AttributeError, SafetensorError, DataError) as error:
        raise _broken_checkpoint(path, error) from None
    return ResumeState(path, progress, moments, averages)


def restore_strategy(strategy: TrainStrategy, resumed: ResumeState) -> LocalShards | None:
    """Bring moments and loss scale back; returns the averages' shards, if the run keeps any.

    Raises:
        ModelError: they are not this model's.
    """
    try:
        strategy.load_moments(resumed.moments)
    except (RuntimeError, KeyError, TypeError) as error:
        raise _broken_checkpoint(resumed.path, error) from None
    if resumed.progress.loss_scale and strategy.loss_scaler.dynamic:
        strategy.loss_scaler = resumed.progress.loss_scale
    if not strategy.run.recipe.optim.ema_decay:
        return None
    if resumed.averages is None:
        return {name: shard.clone() for name, shard in strategy.local_shards().items()}
    return {name: strategy.shard(name, full) for name, full in resumed.averages.items()}


def _broken_checkpoint(path: Path | None, error: Exception) -> ModelError:
    return ModelError(
        message("train.broken-checkpoint", "{path}/trainer cannot be read ({error})", path=path, error=error),
        message(
            "train.broken-checkpoint.hint",
            "put it back; or remove it, and kovqa train --resume goes on from the one before it: rm -r {path}",
            path=shell_quote(path or ""),
        ),
    )


@torch.no_grad()
def update_ema(averages: LocalShards, shards: LocalShards, decay: float) -> None:
    """One step of the moving average, on this process's shards: averages += (1 - decay) · (shards - averages)."""
    torch._foreach_lerp_(list(averages.values()), list(shards.values()), 1 - decay)
