"""The strategy of a run, by the name in its profile."""

from __future__ import annotations

import torch
import torch.distributed as dist

from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.models.family import FamilyModel
from kovqa_core.settings.run import Run
from kovqa_core.train.strategies.base import TrainStrategy
from kovqa_core.train.strategies.ddp import DdpStrategy


def make_strategy(model: FamilyModel, run: Run, rank: RankInfo, device: torch.device) -> TrainStrategy:
    """The strategy that `profile.strategy` names, with the model wrapped.

    Raises:
        SettingsError: it cannot train this model.
    """
    name = run.profile.strategy
    if name == "ddp":
        return DdpStrategy(model, run, rank, device)
    if not dist.is_initialized():  # one process alone: these libraries want a process group all the same
        backend = "nccl" if device.type == "cuda" else "gloo"
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    # Imported when they are used: DeepSpeed may not be installed.
    if name == "fsdp2":
        from kovqa_core.train.strategies.fsdp2 import Fsdp2Strategy

        return Fsdp2Strategy(model, run, rank, device)
    from kovqa_core.train.strategies.zero import ZeroStrategy

    return ZeroStrategy(model, run, rank, device)
