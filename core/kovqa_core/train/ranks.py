"""Who am I among the processes; joining them, and saying something to all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from kovqa_core.errors import MachineError

_PATIENCE = timedelta(minutes=30)  # a rank may be writing a checkpoint or answering alone


@dataclass(frozen=True)
class Rank:
    """Place of one process among all."""

    rank: int
    local_rank: int
    world: int

    @property
    def first(self) -> bool:
        """The one that writes files."""
        return self.rank == 0


def from_env(environ: Mapping[str, str]) -> Rank:
    """Place of this process, as torchrun says it; alone when it says nothing."""
    return Rank(
        int(environ.get("RANK", "0")),
        int(environ.get("LOCAL_RANK", "0")),
        int(environ.get("WORLD_SIZE", "1")),
    )


def join(rank: Rank, device: str) -> torch.device:
    """Enter the group of processes (if there is more than one) and take this process's device.

    Raises:
        MachineError: the GPU this rank should take is not there.
    """
    place = torch.device("cpu")
    if device == "cuda":
        if rank.local_rank >= torch.cuda.device_count():
            raise MachineError(
                f"rank {rank.rank} wants GPU {rank.local_rank}, torch sees {torch.cuda.device_count()}",
                "use a profile with fewer GPUs, or a torch built for this machine's driver",
            )
        place = torch.device("cuda", rank.local_rank)
        torch.cuda.set_device(place)
    if rank.world > 1:
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    return place


def leave() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def total(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def gather(value: Any) -> list[Any]:
    """Every process's value, in rank order, on every process."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
