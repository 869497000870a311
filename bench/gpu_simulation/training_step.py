"""One optimizer step of the engine's own loop, on the simulated GPU."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.models.batches import ModelBatch
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import Run
from kovqa_core.train import loop, optim
from kovqa_core.train.checkpoint import TrainProgress
from kovqa_core.train.state import TrainState
from kovqa_core.train.strategies.choose import make_strategy
from torch.utils._python_dispatch import _disable_current_modes

from bench.gpu_simulation.cases import Case
from bench.gpu_simulation.compiled import counted_compilation
from bench.gpu_simulation.counting import GpuCounts, SimulatedGpu
from bench.gpu_simulation.simulated import simulated_gpu

ACCUMULATE, STEPS = 2, 2  # micro-batches of a step; steps, of which the last is counted


@dataclass(frozen=True)
class StepCounts:
    """What one optimizer step does, per example where not said otherwise.

    Attributes:
        kernels: of one micro-batch, forward and backward, without the optimizer.
        product_mb, other_mb: moved by products, and by all else.
        gflop: of the products.
        waits: of the CPU for the GPU, of a whole step; by line.
        peak_gb: memory of tensors.
        graphs: compiled, forward and backward apart.
        by_operation: bytes moved in a micro-batch by each operation.
    """

    kernels: int
    product_mb: float
    other_mb: float
    gflop: float
    waits: dict[str, int]
    peak_gb: float
    graphs: int
    by_operation: dict[str, int]


def count_step(case: Case, *, compile: bool, micro_batch: int | None = None) -> StepCounts:
    """Count the last of some optimizer steps.

    Args:
        case: the model.
        compile: as `profile.compile`.
        micro_batch: of another size than the case's.
    """
    rows = micro_batch or case.micro_batch
    with simulated_gpu() as gpu, counted_compilation(gpu) as graphs:
        with torch.device("cuda"):
            model: Any = case.make_model().train()
        with _disable_current_modes():
            on_host = case.make_batch(rows)
        if not case.recipe:
            return _count_neighbour(gpu, model, on_host)
        model.prepare(activation_checkpointing=False, compile=compile)
        state = _training_state(model, case, rows)
        batches = _endless(gpu, on_host)
        meter: Any = SimpleNamespace(count_step=lambda *_, **__: None)
        of_micro_batch = GpuCounts()

        def backward(*arguments: Any, **options: Any) -> Any:
            before = copy.deepcopy(gpu.counts)
            loss = strategy_backward(*arguments, **options)
            if not options["last"]:  # the first, which adds to no gradient
                of_micro_batch.__dict__.update(gpu.counts.since(before).__dict__)
            return loss

        strategy_backward = state.strategy.backward
        state.strategy.backward = backward  # type: ignore[method-assign]
        for step in range(STEPS):
            gpu.counts.clear()
            loop.train_step(state, batches, step, meter)
        return _per_example(of_micro_batch, rows, dict(gpu.counts.waits), gpu.counts.peak, len(graphs))


def _per_example(counts: GpuCounts, rows: int, waits: dict[str, int], peak: int, graphs: int) -> StepCounts:
    return StepCounts(
        counts.kernels.total(), counts.product_bytes / rows / 1e6, counts.other_bytes / rows / 1e6,
        counts.flops / rows / 1e9, waits, peak / 1e9, graphs, dict(counts.by_operation),
    )  # fmt: skip


def _count_neighbour(gpu: SimulatedGpu, model: Any, on_host: ModelBatch) -> StepCounts:
    batch, rows = _on_gpu(gpu, on_host), len(on_host.ids)
    gpu.counts.clear()
    with torch.autocast("cuda", torch.bfloat16):
        loss = model(batch, 0)["loss"]
    loss.backward()
    return _per_example(gpu.counts, rows, dict(gpu.counts.waits), gpu.counts.peak, 0)


class _PinnedBatch(ModelBatch):
    """A batch in pinned memory: copying it to the GPU waits for nothing, and is not what is counted here."""

    gpu: SimulatedGpu

    def to(self, device: torch.device) -> ModelBatch:
        """The same batch there."""
        return _on_gpu(self.gpu, ModelBatch(self.tensors, self.ids))


def _on_gpu(gpu: SimulatedGpu, batch: ModelBatch) -> ModelBatch:
    on_gpu, on_host = (
        {
            name: None if tensor is None else gpu.upload(tensor, device)
            for name, tensor in batch.tensors.items()
        }
        for device in ("cuda", "cpu")
    )
    return ModelBatch(on_gpu, batch.ids, on_host=on_host)


def _endless(gpu: SimulatedGpu, on_host: ModelBatch) -> Iterator[ModelBatch]:
    batch = _PinnedBatch(on_host.tensors, on_host.ids)
    object.__setattr__(batch, "gpu", gpu)
    while True:
        yield batch


def _training_state(model: Any, case: Case, rows: int) -> TrainState:
    settings = resolve_settings(
        case.recipe, "h100x8", (), {"data.index": "none", "model.tokenizer": "none", "model.base": "none"}
    )
    profile = settings.profile.model_copy(update={"processes_per_node": 1})
    recipe = settings.recipe
    batch = recipe.optim.model_copy(update={"global_batch": rows * ACCUMULATE})
    run = Run(
        folder=Path("none"), recipe=recipe.model_copy(update={"optim": batch}), profile=profile,
        micro_batch=rows, accumulate=ACCUMULATE,
    )  # fmt: skip
    rank, device = RankInfo(0, 0, 1), torch.device("cuda", 0)
    strategy = make_strategy(model, run, rank, device)
    silent = MagicMock()  # log and checkpoints, which nobody reads
    known = {
        "run": run, "rank": rank, "device": device, "examples": range(1_000_000), "val_examples": [],
        "strategy": strategy, "averages": None, "steps": optim.TrainingSteps(10_000, 0, 10_000),
        "progress": TrainProgress(), "log": silent, "checkpoints": silent, "stop_requested": _never,
        "saved_at": time.monotonic(),
    }  # fmt: skip
    # What else a state has is not asked in a step without a checkpoint and an evaluation.
    named = {field.name: known.get(field.name) for field in fields(TrainState) if field.init}
    return TrainState(**named)  # type: ignore[arg-type]


def _never() -> bool:
    return False
