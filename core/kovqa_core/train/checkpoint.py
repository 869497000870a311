"""Step folders: a model anyone can take away, and what resuming needs beside it.

    RUN/step-001200/   kovqa.json, config.json, model.safetensors, answers.txt, tokenizer/
    RUN/step-001200/trainer/   state.json, optimizer.safetensors (and weights.safetensors when the
                       model's are averaged ones); delete it to publish
    RUN/last, RUN/best         one line: the name of a step folder

Randomness is a function of seed, epoch and example, so there is no generator's state to keep.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kovqa_core.errors import ModelError
from kovqa_core.files import read_json, write_folder, write_json, write_text
from kovqa_core.models import family
from kovqa_core.runs import pointed

Averages = dict[str, Tensor]  # parameter name -> averaged value (EMA)


@dataclass
class State:
    """Where a run is: after how many optimizer steps, and the best so far."""

    step: int = 0
    score: float | None = None  # of the latest evaluation
    best: float | None = None
    best_step: int | None = None


def write(
    folder: Path,
    model: Any,
    processor: family.Processor,
    optimizer: torch.optim.Optimizer,
    averages: Averages | None,
    state: State,
    about: dict[str, Any],
    keep: int,
) -> Path:
    """Write a step folder, point to it, remove the oldest ones.

    Raises:
        MachineError: the disk is full; earlier checkpoints are untouched.
    """
    path = folder / f"step-{state.step:06d}"
    last = pointed(folder, "last")
    kept = f"the checkpoint {last.name} is still whole" if last else "there is no earlier checkpoint"

    def fill(part: Path) -> None:
        trainer = part / "trainer"
        trainer.mkdir()
        if averages is not None:
            save_file(dict(model.state_dict()), trainer / "weights.safetensors")
        with averaged(model, averages):
            family.save(model, processor, part, {**about, "step": state.step, "score": state.score})
        save_file(_optimizer_tensors(model, optimizer), trainer / "optimizer.safetensors")
        write_json(trainer / "state.json", asdict(state))

    write_folder(path, fill, kept)
    write_text(folder / "last", path.name + "\n")
    if state.best_step == state.step or pointed(folder, "best") is None:
        write_text(folder / "best", path.name + "\n")
    for old in to_remove(sorted(p.name for p in folder.glob("step-??????")), keep, pointed(folder, "best")):
        shutil.rmtree(folder / old, ignore_errors=True)
    return path


def to_remove(names: list[str], keep: int, best: Path | None) -> list[str]:
    """Which of the step folders (sorted) go: all but the newest `keep` and the best."""
    return [name for name in names[:-keep] if best is None or name != best.name]


def resume(path: Path, model: Any, optimizer: torch.optim.Optimizer, averages: Averages | None) -> State:
    """Bring optimizer, averages and place back; the model itself was loaded from the folder.

    Raises:
        ModelError: the folder was published without what resuming needs, or that is broken.
    """
    trainer = path / "trainer"
    if not (trainer / "state.json").is_file():
        raise ModelError(f"{path} has no trainer folder: it cannot be resumed", "start a new run from it")
    try:
        if averages is not None:
            for name, parameter in model.named_parameters():
                averages[name].copy_(parameter.detach())
            model.load_state_dict(load_file(trainer / "weights.safetensors"))
        tensors = load_file(trainer / "optimizer.safetensors")
        names = {id(p): name for name, p in model.named_parameters()}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                optimizer.state[parameter] = {
                    "step": tensors["step"].clone(),
                    "exp_avg": tensors[f"exp_avg.{name}"].to(parameter.device),
                    "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(parameter.device),
                }
        return State(**read_json(trainer / "state.json"))
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"{path}/trainer cannot be read ({error})", "remove that step folder") from None


def _optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments by parameter name, so that they fit any number of processes and any grouping."""
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter)
        if state:
            found["step"] = state["step"].detach().clone()
            found[f"exp_avg.{name}"] = state["exp_avg"]
            found[f"exp_avg_sq.{name}"] = state["exp_avg_sq"]
    return found


class averaged:  # reads as a statement
    """Inside, the model has its averaged weights (if there are any)."""

    def __init__(self, model: torch.nn.Module, averages: Averages | None) -> None:
        self.model, self.averages = model, averages

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        averages = self.averages or {}
        for name, parameter in self.model.named_parameters() if averages else ():
            averages[name], parameter.data = parameter.data, averages[name]


@torch.no_grad()
def average(model: torch.nn.Module, averages: Averages, decay: float) -> None:
    """One step of the moving average."""
    torch._foreach_lerp_(list(averages.values()), [p.data for p in model.parameters()], 1 - decay)
