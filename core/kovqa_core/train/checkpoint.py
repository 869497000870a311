"""Step folders: a model anyone can take away, and beside it what resuming needs.

    RUN/step-001200/   kovqa.json, config.json, model.safetensors, answers.txt, tokenizer/
    RUN/step-001200/trainer/   state.json, optimizer.safetensors, files.json (and weights.safetensors when
                       the model's are averaged ones); delete it to publish
    RUN/last, RUN/best         one line: the name of a step folder

Randomness is a function of seed, epoch and example, so there is no generator's state to keep.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
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
from kovqa_core.models.family import FamilyModel
from kovqa_core.runs.checksums import allow_contents, note_files
from kovqa_core.runs.folder import follow_pointer
from kovqa_core.runs.step_folders import WRITTEN_AGAIN, list_step_folders, step_number
from kovqa_core.runs.step_lease import remove_unread_step
from kovqa_core.train.host_copies import HostCopies
from kovqa_core.train.strategies.base import LocalShards, LossScaler, TrainStrategy
from kovqa_core.whole_folder import write_folder

PartWriter = Callable[[Path], None]  # writes one part of a step folder into it


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


def gather_parts(
    strategy: TrainStrategy,
    processor: ExampleProcessor,
    averages: LocalShards | None,
    info: CheckpointInfo,
    host: HostCopies | None,
) -> Iterator[PartWriter]:
    """Model and optimizer of a step folder, part by part. Collective: all processes must come here.

    The collective calls stand in one order for all processes, with and without copies.

    Args:
        strategy: puts shards together.
        processor: saved with the model.
        averages: moving averages of the weights; None: the run keeps none.
        info: becomes the folder's `kovqa.json`.
        host: takes copies, so that parts may be written later, while training goes on; None: each part is to be
            written before the next is asked for, and holds what it must alone.

    Yields:
        What writes each part; on the first process, for the others have nothing to write.
    """
    is_writer = strategy.rank.is_main_process
    if averages is not None:
        # The model folder gets the averages, which people take away; training goes on with these.
        with _model_to_save(strategy, None, host) as model:
            if model is not None:
                yield partial(_write_tensors, "weights", dict(model.state_dict()))
    with _model_to_save(strategy, averages, host) as model:
        if model is not None:
            yield partial(family.write_model_folder, model, processor, info=info)
    moments = strategy.full_moments(_to_cpu if host is None else host.copy)
    if is_writer:
        yield partial(_write_tensors, "optimizer", moments)


@contextlib.contextmanager
def _model_to_save(
    strategy: TrainStrategy, averages: LocalShards | None, host: HostCopies | None
) -> Iterator[FamilyModel | None]:
    if host is not None:
        yield strategy.copy_full_model(averages, host)
        return
    with strategy.full_model(averages, everywhere=False) as model:
        yield model


def _to_cpu(name: str, tensor: Tensor) -> Tensor:
    return tensor.cpu()


def _write_tensors(name: str, tensors: Mapping[str, Tensor], folder: Path) -> None:
    save_file(dict(tensors), folder / "trainer" / f"{name}.safetensors")


def write_step_folder(folder: Path, parts: Iterable[PartWriter], progress: TrainProgress, keep: int) -> Path:
    """Write a step folder, point to it, remove the oldest ones; the first process does, in whichever thread.

    Args:
        folder: of the run.
        parts: of `gather_parts`.
        progress: of the step, which nobody changes meanwhile.
        keep: so many step folders, and the best, stay.

    Returns:
        The step folder.

    Raises:
        MachineError: the disk is full; earlier checkpoints are untouched.
    """
    path = folder / f"step-{progress.step:06d}"

    def fill(unfinished: Path) -> None:
        (unfinished / "trainer").mkdir()
        _write_progress(unfinished / "trainer", progress)
        for write_part in parts:
            write_part(unfinished)
        note_files(unfinished)

    last = follow_pointer(folder, "last")
    if last:
        note = message("train.last-checkpoint-whole", "the checkpoint {step} is still whole", step=last.name)
    else:
        note = message("train.no-earlier-checkpoint", "there is no earlier checkpoint")
    # Pointers only once the folder is whole, and older folders go only once both pointers are right: killed
    # at any line, `last` and `best` name folders that exist.
    write_folder(path, fill, note)
    write_text(folder / "last", path.name + "\n")
    _point_to_best(folder, path, progress, keep)
    return path


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
        strategy.set_loss_scaler(resumed.progress.loss_scale)
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
