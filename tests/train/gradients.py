"""Gradients of one step on several numbers of processes: gradients.py CASES.json FOLDER

Everything is imported once; the processes of each size are forked from this one, which computes nothing itself
(torch's threads do not outlive a fork).
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import Run, make_run
from kovqa_core.train import loop
from kovqa_core.train.accumulate import accumulate_gradients
from kovqa_core.train.state import TrainState
from kovqa_core.train.step_report import sum_step
from kovqa_core.train.strategies.base import LossScaler

STEP = 1  # the second: `drop_worst_after: 0` begins to drop there


@dataclass(frozen=True)
class Case:
    """A loss, and the settings that make it small."""

    name: str
    recipe: str
    flags: dict[str, str]
    sets: list[str]


@dataclass(frozen=True, order=True)
class Cut:
    """How a global batch is cut: processes, micro-batches of each, and their size."""

    world: int
    accumulate: int
    micro_batch: int

    @property
    def batch(self) -> int:
        return self.world * self.accumulate * self.micro_batch

    def __str__(self) -> str:
        return f"{self.world}×{self.accumulate}×{self.micro_batch}"


def file_of(folder: Path, case: str, cut: Cut) -> Path:
    return folder / f"{case.replace(' ', '-')}-{cut.world}-{cut.accumulate}-{cut.micro_batch}.npz"


def cut_run(run: Run, cut: Cut) -> Run:
    optim = run.recipe.optim.model_copy(update={"global_batch": cut.batch})
    recipe = run.recipe.model_copy(update={"optim": optim})
    return run.model_copy(
        update={"recipe": recipe, "micro_batch": cut.micro_batch, "accumulate": cut.accumulate}
    )


def measure(case: Case, cuts: list[Cut], rank: int, folder: Path) -> None:
    """Gradient and loss of one step, by each way of cutting."""
    world = cuts[0].world
    settings = resolve_settings(case.recipe, "cpu", case.sets, case.flags)
    run_folder = folder / f"run-{case.name}-{world}-{rank}"
    run_folder.mkdir()
    run = cut_run(make_run(settings.recipe, settings.profile, run_folder, []), cuts[0])
    state = loop.prepare_training(run, RankInfo(rank, rank, world), torch.device("cpu"), lambda: False)
    state.progress.step = STEP
    if state.strategy.loss_scaler.dynamic:
        state.strategy.set_loss_scaler(LossScaler(True, 256.0))  # a run finds it by skipped steps
    for cut in cuts:
        state.run = state.strategy.run = cut_run(run, cut)
        loss, gradient, left_out = loss_and_gradient(state)
        if rank == 0:
            np.savez(file_of(folder, case.name, cut), loss=loss, gradient=gradient, left_out=left_out)


def loss_and_gradient(state: TrainState) -> tuple[float, np.ndarray, int]:
    state.steps = replace(state.steps, total=STEP + 1)
    micro_batches = accumulate_gradients(state, loop._train_batches(state), STEP)
    sums = sum_step(state, micro_batches, stop_requested=False, save_due=False)
    parameters = [p for p in state.strategy.model.parameters() if p.requires_grad]
    gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.zero_()  # views of DDP's buckets
    scale = (sums.gradient_scale / state.strategy.loss_scale).float()
    return sums.loss.item(), (gradient * scale).numpy(), int(sums.values[4])


def processes(cases: list[Case], cuts: list[Cut], folder: Path) -> None:
    """All cases on as many processes as the cuts have."""
    world = cuts[0].world
    children = []
    for rank in range(world):
        if child := os.fork():
            children.append(child)
            continue
        code = 1
        try:
            if world > 1:
                meeting = f"file://{folder}/meeting-{world}"
                dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
            for case in cases:
                measure(case, cuts, rank, folder)
            if world > 1:
                dist.destroy_process_group()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        sys.exit(f"{world} processes ended with {codes}")


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[2])
    asked = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    cases = [Case(**values) for values in asked["cases"]]
    if any(case.recipe.startswith("tiny-vlm") for case in cases):
        import kovqa_core.models.vlm.family
    import kovqa_core.models.beit3.family
    import kovqa_core.models.fusion.family  # noqa: F401
    import transformers.models.qwen2_5_vl.modeling_qwen2_5_vl  # noqa: F401

    cuts = [Cut(**values) for values in asked["cuts"]]
    for world in sorted({cut.world for cut in cuts}):
        processes(cases, [cut for cut in cuts if cut.world == world], folder)


def asked_text(cases: list[Case], cuts: list[Cut]) -> str:
    """What `main` reads."""
    return json.dumps({"cases": [asdict(case) for case in cases], "cuts": [asdict(cut) for cut in cuts]})


if __name__ == "__main__":
    main()
