"""True peak of tensor memory of one training step: every allocation of torch's, counted by its profiler."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import torch
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.models.batches import iterate_batches
from kovqa_core.settings.run import Run
from kovqa_core.train import checkpoint, loop
from kovqa_core.train.loader import micro_batch_keys
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def peak_of(run: Run) -> float:
    """Bytes at the fullest moment of a run's second optimizer step: the first one makes the states."""
    rank, device = RankInfo(0, 0, 1), torch.device("cpu")
    t = loop.prepare_training(run, rank, device, lambda: False)
    keys = micro_batch_keys(run, len(t.rows), rank, 0, t.length.total)
    loader = iterate_batches(keys, t.rows, t.index.images, t.processor, train=True)
    _step(t, loader, 0)
    gc.collect()
    standing = _bytes(_standing(t))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        _step(t, loader, 1)
    t.log.close()
    kineto = seen.profiler.kineto_results if seen.profiler else None
    assert kineto is not None
    events = [event for event in kineto.events() if event.name() == "[memory]"]
    total = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()  # what is freed is negative
        most = max(most, total)
    return standing + most


def _step(t: loop.TrainState, loader: Iterator[Any], step: int) -> None:
    """As `loop.train` does it."""
    loop.accumulate_gradients(t, loader, step)
    t.stepper.step()
    if t.averages is not None:
        checkpoint.update_ema(t.averages, t.stepper.pieces(), t.run.recipe.optim.ema_decay)


def _standing(t: loop.TrainState) -> Iterator[Tensor]:
    """What is there between two steps."""
    yield from t.stepper.model.parameters()
    yield from t.stepper.model.buffers()
    yield from (t.averages or {}).values()
    for state in t.stepper.optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


def _bytes(tensors: Iterator[Tensor]) -> int:
    stores = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(stores.values())
