"""Joining the other processes, and exchanging values with them."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from kovqa_core.bounded_json import parse_json
from kovqa_core.distributed import watchdog
from kovqa_core.distributed.heartbeat import WatchedPeer
from kovqa_core.distributed.rank_info import RankInfo, choose_gpu, gpu_binding_hint
from kovqa_core.errors import MachineError
from kovqa_core.messages import Message, message

_RENDEZVOUS_TIMEOUT = timedelta(seconds=50)  # then the error says where this process waited for the others
# Never the first to give up: the watchdog knows which rank hangs, a collective's timeout names only who waits.
_COLLECTIVE_TIMEOUT = timedelta(days=1)
_MAX_CLOCK_SKEW = 5.0  # seconds by which clocks may differ without a warning
_MAX_ERROR_LENGTH = 200  # characters of another library's error in a message of ours

T = TypeVar("T")


def init_process_group(rank: RankInfo, device: str, watch: watchdog.WatchdogConfig) -> torch.device:
    """Join the other processes (if there are any) and take this process's device.

    Args:
        rank: place of this process.
        device: "cuda" or "cpu".
        watch: how this process is watched from now on.

    Raises:
        MachineError: this rank's GPU does not exist, or the others do not come.
    """
    torch_device = local_device(rank, device)
    if rank.world_size == 1:
        watchdog.start_watchdog(watch, [])
        return torch_device
    # DeepSpeed and others read these, also where srun started us and set none of them. They take LOCAL_RANK for
    # the number of a GPU, which it is not where a process sees one GPU alone.
    gpu = rank.local_rank if torch_device.index is None else torch_device.index
    os.environ.update(
        RANK=str(rank.rank), LOCAL_RANK=str(gpu), WORLD_SIZE=str(rank.world_size),
        MASTER_ADDR=rank.host, MASTER_PORT=str(rank.port),
    )  # fmt: skip
    store = _open_rendezvous_store(rank)
    if device == "cuda":
        require_own_gpus(_exchange_gpus(rank, store, torch_device))
    # Watched from before it joins: joining can hang as well, and has a limit of its own.
    watchdog.start_watchdog(watch, _connect_watchdog(rank, store))
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        store=store,
        rank=rank.rank,
        world_size=rank.world_size,
        timeout=_COLLECTIVE_TIMEOUT,
    )
    # The first collective opens connections, some seconds on many hosts: only then do clocks compare.
    all_gather_objects(None)
    warning = clock_skew_warning(all_gather_objects((socket.gethostname(), time.time())))
    if warning and rank.is_main_process:
        watch.warn(warning)
    return torch_device


def local_device(rank: RankInfo, device: str) -> torch.device:
    """This process's device: the GPU of its local rank, the one GPU that SLURM bound to it, or the CPU.

    Raises:
        MachineError: this rank's GPU does not exist.
    """
    if device != "cuda":
        return torch.device(device)
    gpu = torch.device("cuda", choose_gpu(rank, torch.cuda.device_count()))
    torch.cuda.set_device(gpu)
    return gpu


@dataclass(frozen=True)
class RankGpu:
    """The GPU that a process took; `uuid` is "" where torch does not say it, `visible` counts what it sees."""

    rank: int
    host: str
    visible: int
    uuid: str


def _exchange_gpus(rank: RankInfo, store: Store, device: torch.device) -> list[RankGpu]:
    """Every process's GPU. Through the store: a collective of NCCL would fail, in words of its own."""
    uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    mine = RankGpu(rank.rank, socket.gethostname(), torch.cuda.device_count(), uuid)
    store.set(f"gpu/{rank.rank}", json.dumps(astuple(mine)))
    return [RankGpu(*parse_json(store.get(f"gpu/{other}"))) for other in range(rank.world_size)]


def require_own_gpus(gpus: Sequence[RankGpu]) -> None:
    """See that each process has a GPU of its own.

    Raises:
        MachineError: two processes of a host took the same one.
    """
    owners: dict[tuple[str, str], RankGpu] = {}
    for gpu in gpus:
        other = owners.setdefault((gpu.host, gpu.uuid), gpu)
        if other is not gpu and gpu.uuid:
            raise MachineError(
                message(
                    "distributed.shared-gpu",
                    "ranks {rank} and {other} on {host} have the same GPU: they see {visible} and {other_visible}",
                    rank=other.rank,
                    other=gpu.rank,
                    host=gpu.host,
                    visible=other.visible,
                    other_visible=gpu.visible,
                ),
                gpu_binding_hint(),
            )


def _open_rendezvous_store(rank: RankInfo) -> Store:
    """The store all processes share, once all have come.

    Each writes that it is here and waits for all others: init_process_group alone would let the first
    process wait a day (see _COLLECTIVE_TIMEOUT) for one that never came.
    """
    url = f"tcp://{rank.host}:{rank.port}?rank={rank.rank}&world_size={rank.world_size}"
    try:
        store = next(iter(rendezvous(url, timeout=_RENDEZVOUS_TIMEOUT)))[0]
        store.set(f"here/{rank.rank}", socket.gethostname())
        store.wait([f"here/{other}" for other in range(rank.world_size)], _RENDEZVOUS_TIMEOUT)
    except (RuntimeError, ValueError, OSError) as error:
        raise _rendezvous_error(rank, error) from None
    return store


def _rendezvous_error(rank: RankInfo, error: Exception) -> MachineError:
    problem = (str(error).strip() or type(error).__name__).splitlines()[0][:_MAX_ERROR_LENGTH]
    return MachineError(
        message(
            "distributed.not-met",
            "rank {rank} of {world_size} on {host} did not meet the others at {rendezvous} ({problem})",
            rank=rank.rank,
            world_size=rank.world_size,
            host=socket.gethostname(),
            rendezvous=rank.rendezvous_text,
            problem=problem,
        ),
        message(
            "distributed.not-met.hint",
            "can every node reach that address? set `network_interface` in the profile, and check for a firewall",
        ),
    )


def _connect_watchdog(rank: RankInfo, store: Store) -> list[WatchedPeer]:
    """A connection between the first process and each other one, for the watchdog.

    Its port is a free one that the first process publishes in the store, with a secret: whoever else connects
    to an open port of a cluster's node is turned away.
    """
    seconds = _RENDEZVOUS_TIMEOUT.total_seconds()
    try:
        if rank.is_main_process:
            with watchdog.listen_for_peers(rank.world_size) as server:
                secret = os.urandom(16).hex()
                store.set("watchdog", json.dumps([server.getsockname()[1], secret]))
                return watchdog.accept_peers(server, rank.world_size - 1, secret, seconds)
        port, secret = parse_json(store.get("watchdog"))
        return [watchdog.connect_to_main(rank.host, port, secret, rank.rank, seconds)]
    except OSError as error:
        raise _rendezvous_error(rank, error) from None


def clock_skew_warning(times: Sequence[tuple[str, float]]) -> Message | None:
    """The warning about clocks that differ, naming the two that differ most; None where they agree.

    Training goes by the first process's clock alone; what people compare afterwards does not.

    Args:
        times: (host, seconds since 1970), read at the same moment.
    """
    (slow_host, low), (fast_host, high) = (extreme(times, key=lambda pair: pair[1]) for extreme in (min, max))
    if high - low <= _MAX_CLOCK_SKEW:
        return None
    return message(
        "distributed.clocks-differ",
        "the clock of {fast_host} is {seconds:.0f} s ahead of {slow_host}'s: times in logs and of files will not "
        "fit together (training itself goes by the first process's clock); set them with NTP",
        fast_host=fast_host,
        seconds=high - low,
        slow_host=slow_host,
    )


def destroy_process_group() -> None:
    """Leave the group, if there is one, together.

    Together, because a launcher that sees one process end may end the others while they still save; the
    watchdog stops first, for what ends from now on ends as it should.
    """
    if dist.is_initialized():
        all_gather_objects(None)
        watchdog.stop_watchdog()
        dist.destroy_process_group()
    watchdog.stop_watchdog()


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes, in place.

    On GPUs this returns before the others have come: whoever reads the sum waits for them, and says so
    (`watchdog.waiting_for_peers`).
    """
    if dist.is_initialized():
        with watchdog.waiting_for_peers():
            dist.all_reduce(values)
    return values


def all_gather_objects(value: T) -> list[T]:
    """Every process's value (pickled: numbers and texts, not tensors), in rank order, on every process."""
    if not dist.is_initialized():
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    with watchdog.waiting_for_peers():
        dist.all_gather_object(values, value)
    return cast("list[T]", values)
