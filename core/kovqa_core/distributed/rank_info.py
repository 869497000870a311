"""Which of the processes this one is, as the variables of torchrun or SLURM have it. Needs no torch."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from kovqa_core.errors import MachineError
from kovqa_core.messages import Message, message


@dataclass(frozen=True)
class RankInfo:
    """Place of one process among all, and where they meet.

    Attributes:
        rank: among all, from 0.
        local_rank: among those of this host.
        world_size: processes in all.
        host, port: of the first process, where the others meet it.
        may_be_bound: its launcher may have bound one GPU to each process, which then sees no other (SLURM's
            --gpus-per-task, --gpu-bind).
    """

    rank: int
    local_rank: int
    world_size: int
    host: str = ""
    port: int = 0
    may_be_bound: bool = False

    @property
    def is_main_process(self) -> bool:
        """Is this the process that writes files?"""
        return self.rank == 0

    @property
    def rendezvous_text(self) -> Message:
        """Where the processes meet, in words."""
        interface = os.environ.get("NCCL_SOCKET_IFNAME") or os.environ.get("GLOO_SOCKET_IFNAME")
        if interface:
            return message(
                "distributed.rendezvous",
                "{host}, port {port}, interface {interface}",
                host=self.host,
                port=self.port,
                interface=interface,
            )
        return message(
            "distributed.rendezvous-default-route",
            "{host}, port {port}, interface of the default route",
            host=self.host,
            port=self.port,
        )


def rank_from_torchrun(environ: Mapping[str, str]) -> RankInfo:
    """Place of this process, as torchrun's variables have it; alone where there are none."""
    return RankInfo(
        int(environ.get("RANK", "0")),
        int(environ.get("LOCAL_RANK", "0")),
        int(environ.get("WORLD_SIZE", "1")),
        environ.get("MASTER_ADDR", ""),
        int(environ.get("MASTER_PORT", "0")),
    )


def rank_from_slurm(environ: Mapping[str, str]) -> RankInfo:
    """Place of this process, one srun task of several; alone outside of srun.

    Raises:
        MachineError: `scontrol` does not name the first host.
    """
    # The step's number of tasks first: SLURM_NTASKS may be the job's, or a value that somebody exported.
    world = int(environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS", "1"))
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
    one_host = world == 1 or environ.get("SLURM_STEP_NUM_NODES") == "1"
    return RankInfo(
        int(environ.get("SLURM_PROCID", "0")),
        int(environ.get("SLURM_LOCALID", "0")),
        world,
        "127.0.0.1" if one_host else first_slurm_host(nodes),
        slurm_rendezvous_port(int(environ.get("SLURM_JOB_ID", "0")), int(environ.get("SLURM_STEP_ID", "0"))),
        may_be_bound=True,
    )


def slurm_rendezvous_port(job: int, step: int) -> int:
    """The port at which the processes of a SLURM step meet; launch/launchers/node.sh has the same formula in bash.

    No other step of this or another job takes it, as long as job × 16 + step differ by less than 20,000;
    and it lies below the ports that a system gives out itself (from 32768).
    """
    return 10000 + (job * 16 + step) % 20000


def first_slurm_host(nodes: str) -> str:
    """First host of a SLURM node list such as `gpu[07-09,12]`.

    Raises:
        MachineError: `scontrol` is not here, or does not know the list.
    """
    try:
        done = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, timeout=30, check=False
        )
        problem, hosts = done.stderr.strip(), done.stdout.split()
    except (OSError, subprocess.TimeoutExpired) as error:
        problem, hosts = str(error), []
    if not hosts:
        raise MachineError(
            message(
                "distributed.no-slurm-hosts",
                "scontrol does not name the hosts of {nodes!r} ({problem})",
                nodes=nodes,
                problem=problem,
            ),
            message(
                "distributed.no-slurm-hosts.hint",
                "the workers need SLURM's client tools on every node; or set slurm.tasks: node",
            ),
        )
    return hosts[0]


def choose_gpu(rank: RankInfo, visible: int) -> int:
    """Number of this process's GPU among those that it sees.

    Args:
        rank: place of this process.
        visible: GPUs that it sees: all of its host, or those bound to it.

    Raises:
        MachineError: this rank's GPU is not among them.
    """
    if rank.local_rank < visible:
        return rank.local_rank
    if visible == 1 and rank.may_be_bound:
        return 0
    problem = message(
        "distributed.no-such-gpu",
        "rank {rank} on {host} wants GPU {gpu}, torch sees {gpus}",
        rank=rank.rank,
        host=socket.gethostname(),
        gpu=rank.local_rank,
        gpus=visible,
    )
    if visible and rank.may_be_bound:
        raise MachineError(problem, gpu_binding_hint())
    raise MachineError(
        problem,
        message(
            "distributed.no-such-gpu.hint",
            "use a profile with fewer GPUs, or a torch built for this machine's driver",
        ),
    )


def gpu_binding_hint() -> Message:
    """What to do where SLURM binds GPUs to tasks in another way than kovqa needs."""
    return message(
        "distributed.gpu-binding.hint",
        "bind one GPU to each task (slurm.options: [--gpus-per-task=1]), or let each task see all GPUs of its node "
        "(no --gpu-bind, no --gpus-per-task, in the profile, in salloc or in SLURM_* variables)",
    )
