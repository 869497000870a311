"""Joining the other processes, and saying something to all of them."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from kovqa_core.distributed import watchdog
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import MachineError

_RENDEZVOUS_TIMEOUT = timedelta(seconds=50)  # somebody who waits longer for the others is told where
_COLLECTIVE_TIMEOUT = timedelta(
    days=1
)  # never the first to give up: the watchdog knows who hangs, and says it
_MAX_CLOCK_SKEW = 5.0  # seconds clocks may differ by without a word


def init_process_group(rank: RankInfo, device: str, watch: watchdog.WatchdogConfig) -> torch.device:
    """Enter the group of processes (if there is more than one) and take this process's device.

    Raises:
        MachineError: the GPU this rank should take is not there, or the others do not come.
    """
    place = local_device(rank, device)
    if rank.world == 1:
        watchdog.start_watchdog(watch, [])
        return place
    # What libraries look for, whoever started us.
    os.environ.update(
        RANK=str(rank.rank), LOCAL_RANK=str(rank.local_rank), WORLD_SIZE=str(rank.world),
        MASTER_ADDR=rank.host, MASTER_PORT=str(rank.port),
    )  # fmt: skip
    store = _open_rendezvous_store(rank)
    watchdog.start_watchdog(watch, _connect_watchdog(rank, store))
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        store=store,
        rank=rank.rank,
        world_size=rank.world,
        timeout=_COLLECTIVE_TIMEOUT,
    )
    all_gather_objects(None)  # now they know each other, and are here at the same time
    warning = clock_skew_warning(all_gather_objects((socket.gethostname(), time.time())))
    if warning and rank.first:
        watch.warn(warning)
    return place


def local_device(rank: RankInfo, device: str) -> torch.device:
    """This process's device.

    Raises:
        MachineError: the GPU this rank should take is not there.
    """
    if device != "cuda":
        return torch.device(device)
    if rank.local_rank >= torch.cuda.device_count():
        raise MachineError(
            f"rank {rank.rank} on {socket.gethostname()} wants GPU {rank.local_rank}, "
            f"torch sees {torch.cuda.device_count()}",
            "use a profile with fewer GPUs, or a torch built for this machine's driver",
        )
    place = torch.device("cuda", rank.local_rank)
    torch.cuda.set_device(place)
    return place


def _open_rendezvous_store(rank: RankInfo) -> Any:
    """The store all processes share; an error that says where, when they do not come."""
    url = f"tcp://{rank.host}:{rank.port}?rank={rank.rank}&world_size={rank.world}"
    try:
        store = next(iter(rendezvous(url, timeout=_RENDEZVOUS_TIMEOUT)))[0]
        store.set(f"here/{rank.rank}", socket.gethostname())
        store.wait([f"here/{other}" for other in range(rank.world)], _RENDEZVOUS_TIMEOUT)
    except (RuntimeError, ValueError, OSError) as error:
        raise _rendezvous_error(rank, error) from None
    return store


def _rendezvous_error(rank: RankInfo, error: Exception) -> MachineError:
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return MachineError(
        f"rank {rank.rank} of {rank.world} on {socket.gethostname()} did not meet the others at {rank.meeting} "
        f"({said})",
        "is that address reached from every node? set `network_interface` in the profile, and see a firewall",
    )


def _connect_watchdog(rank: RankInfo, store: Any) -> list[watchdog.WatchedPeer]:
    """A line between the first process and each other one, for the watchdog."""
    try:
        if rank.first:
            with watchdog.listen_for_peers(rank.world) as server:
                secret = os.urandom(16).hex()
                store.set("watchdog", json.dumps([server.getsockname()[1], secret]))
                return watchdog.accept_peers(
                    server, rank.world - 1, secret, _RENDEZVOUS_TIMEOUT.total_seconds()
                )
        port, secret = json.loads(store.get("watchdog"))
        return [
            watchdog.connect_to_main(rank.host, port, secret, rank.rank, _RENDEZVOUS_TIMEOUT.total_seconds())
        ]
    except OSError as error:
        raise _rendezvous_error(rank, error) from None


def clock_skew_warning(times: Sequence[tuple[str, float]]) -> str | None:
    """What to say of (host, seconds) read at the same moment: None, or the two that differ most.

    Training goes by the first process's clock alone; what people compare afterwards does not.
    """
    (late, low), (early, high) = (choose(times, key=lambda pair: pair[1]) for choose in (min, max))
    if high - low <= _MAX_CLOCK_SKEW:
        return None
    return (
        f"the clock of {early} is {high - low:.0f} s ahead of {late}'s: times in logs and of files will not fit "
        "together (training itself goes by the first process's clock); set them with NTP"
    )


def destroy_process_group() -> None:
    """Leave the group, if there is one, together: a launcher may end whoever is left."""
    if dist.is_initialized():
        all_gather_objects(None)
        watchdog.stop_watchdog()
        dist.destroy_process_group()
    watchdog.stop_watchdog()


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes, in place."""
    if dist.is_initialized():
        with watchdog.waiting_for_peers():
            dist.all_reduce(values)
    return values


def all_gather_objects(value: Any) -> list[Any]:
    """Every process's value, in rank order, on every process."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    with watchdog.waiting_for_peers():
        dist.all_gather_object(values, value)
    return values
