"""True peak of tensor memory of one training step: every allocation of torch's, counted by its profiler."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import torch
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.models.batches import ModelBatch, iterate_batches
from kovqa_core.settings.run import Run
from kovqa_core.train import loop, optim
from kovqa_core.train.loader import micro_batch_keys
from kovqa_core.train.state import TrainState
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def peak_of(run: Run) -> float:
    """Bytes at the fullest moment of a run's second optimizer step: the first one makes the states."""
    rank, device = RankInfo(0, 0, 1), torch.device("cpu")
    state = loop.prepare_training(run, rank, device, lambda: False)
    keys = micro_batch_keys(run, len(state.examples), rank, 0, state.steps.total)
    batches = iterate_batches(keys, state.examples, state.index.images, state.processor, train=True)
    _step(state, batches, 0)
    gc.collect()
    between_steps = _bytes(_kept_tensors(state))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        _step(state, batches, 1)
    state.log.close()
    kineto = seen.profiler.kineto_results if seen.profiler else None
    assert kineto is not None
    events = [event for event in kineto.events() if event.name() == "[memory]"]
    total = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()  # what is freed is negative
        most = max(most, total)
    return between_steps + most


def _step(state: TrainState, batches: Iterator[ModelBatch], step: int) -> None:
    """As `loop.train_step` does it."""
    micro_batches = loop.accumulate_gradients(state, batches, step)
    sums = loop.sum_step(state, micro_batches, stop_requested=False, save_due=False)
    outcome = state.strategy.step(sums.gradient_scale, sums.loss)
    if state.averages is not None:
        decay = state.run.recipe.optim.ema_decay
        optim.update_ema(state.averages, state.strategy.local_shards(), decay, outcome.skipped)


def _kept_tensors(state: TrainState) -> Iterator[Tensor]:
    """What stays between two steps."""
    yield from state.strategy.model.parameters()
    yield from state.strategy.model.buffers()
    yield from (state.averages or {}).values()
    for moments in state.strategy.optimizer.state.values():
        yield from (value for value in moments.values() if isinstance(value, Tensor))


def _bytes(tensors: Iterator[Tensor]) -> int:
    stores = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(stores.values())
