"""A run before its first step, for checks that make the steps themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.models.batches import ModelBatch, iterate_batches
from kovqa_core.settings.run import Run
from kovqa_core.train import loop
from kovqa_core.train.loader import micro_batch_keys
from kovqa_core.train.meter import TrainMeter
from kovqa_core.train.state import TrainState

ALONE = RankInfo(0, 0, 1)
Started = tuple[TrainState, Iterator[ModelBatch], TrainMeter]


@contextmanager
def started(run: Run, device: torch.device) -> Iterator[Started]:
    """A run before its first step."""
    state = loop.prepare_training(run, ALONE, device, lambda: False)
    keys = micro_batch_keys(run, len(state.examples), ALONE, 0, state.steps.total)
    batches = iterate_batches(
        keys, state.examples, state.index.images, state.processor, train=True, seed=run.recipe.seed,
        workers=run.profile.loader_workers, pin=device.type == "cuda", keep_faults=True,
    )  # fmt: skip
    yield state, batches, TrainMeter(state, began=time.monotonic(), first_step=0)
    state.log.close()
