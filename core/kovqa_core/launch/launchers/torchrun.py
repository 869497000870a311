"""torchrun: this machine by itself, or several that meet at an address (c10d rendezvous).

Sources: `python -m torch.distributed.run --help`; docs/sources/launching.md, R1 to R9.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Mapping, Sequence

from kovqa_core.distributed.rank_info import RankInfo, rank_from_torchrun
from kovqa_core.errors import MachineError
from kovqa_core.launch.launchers.protocol import LaunchPlan, LaunchRequest
from kovqa_core.machine.hardware import APPLE_GPU, find_gpus
from kovqa_core.messages import Message, message
from kovqa_core.messages.system_reasons import system_reason
from kovqa_core.settings.profile import Profile

LOOPBACK = "127.0.0.1"
_LOOPBACK_SECONDS = 5.0
STOP_TIMEOUT = 120  # seconds workers that were asked to stop have to write their checkpoint

# torch's names; its binding follows the GPU that a process uses.
_NUMA_BINDINGS = {"node": "node", "socket": "socket", "cores": "exclusive"}


def settings_problem(profile: Profile) -> Message | None:
    """Several nodes without an address to meet at, a range of which none may leave, or a setup of SLURM's launchers."""
    if profile.slurm.node_setup:
        return message(
            "launch.torchrun-node-setup",
            "slurm.node_setup is for the launchers srun and sbatch; torchrun runs `setup` on each machine",
        )
    if len(profile.node_range) > 1 and not profile.max_restarts:
        return message(
            "launch.range-needs-restarts",
            "nodes: {nodes} is a range: set max_restarts, for when a node leaves, the others start again",
            nodes=profile.nodes,
        )
    if profile.max_nodes == 1 or profile.rendezvous:
        return None
    return message(
        "launch.torchrun-needs-rendezvous",
        "torchrun over several nodes needs rendezvous: HOST:PORT of the first node",
    )


def check_machine(profile: Profile, nearest_profile: Callable[[], str]) -> None:
    """See that GPUs and network are here.

    Raises:
        MachineError: too few GPUs (names the profile that fits), no loopback, or a rendezvous
            whose host or interface, or a host name of this machine, that is not known here.
    """
    if profile.max_nodes > 1:
        _check_network(profile)
    else:
        _check_loopback()
    if profile.device == "cpu":
        return
    found = find_gpus()
    matching = [gpu for gpu in found.gpus if (gpu.name == APPLE_GPU) == (profile.device == "mps")]
    if len(matching) >= profile.processes_per_node:
        return
    hint = message(
        "launch.too-few-gpus.hint",
        "use --profile {profile}",
        profile=nearest_profile(),
    )
    if profile.device == "mps":
        problem = message(
            "launch.no-apple-gpu",
            "profile {profile} needs an Apple GPU, this machine shows none",
            profile=profile.name,
        )
    else:
        problem = message(
            "launch.too-few-gpus",
            "profile {profile} needs {needed} GPUs, this machine shows {visible}",
            profile=profile.name,
            needed=profile.processes_per_node,
            visible=len(matching),
        )
    if found.problems:
        problem = message(
            "launch.too-few-gpus-because", "{problem} ({reason})", problem=problem, reason=found.problems[0]
        )
    raise MachineError(problem, hint)


def _check_loopback() -> None:
    """See that processes of this machine can reach each other."""
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=_LOOPBACK_SECONDS).close()
    except OSError as error:
        raise MachineError(
            message(
                "launch.no-loopback",
                "processes on {host} cannot reach each other at {address} ({problem})",
                host=socket.gethostname(),
                address=LOOPBACK,
                problem=system_reason(error),
            ),
            message("launch.no-loopback.hint", "bring the loopback interface up: ip link set lo up"),
        ) from None


def _check_network(profile: Profile) -> None:
    host, _, port = profile.rendezvous.rpartition(":")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except OSError as error:
        raise MachineError(
            message(
                "launch.unknown-rendezvous-host",
                "rendezvous {rendezvous}: host {host} is not known here ({problem})",
                rendezvous=profile.rendezvous,
                host=host,
                problem=system_reason(error),
            ),
            message(
                "launch.unknown-rendezvous-host.hint",
                "name the first node as all nodes know it: --set profile.rendezvous=HOST:PORT",
            ),
        ) from None
    # torchrun gives the others this name: its own nodes look for it, for ever, where it does not resolve.
    own_name = socket.getfqdn()
    try:
        socket.getaddrinfo(own_name, None)
    except OSError as error:
        raise MachineError(
            message(
                "launch.unknown-own-name",
                "this machine's own name {host} does not resolve ({problem}), and the other nodes of {rendezvous} "
                "are told it",
                host=own_name,
                problem=system_reason(error),
                rendezvous=profile.rendezvous,
            ),
            message(
                "launch.unknown-own-name.hint",
                "add its address and name to /etc/hosts of every node, or give it a name that resolves: hostname NAME",
            ),
        ) from None
    interfaces = [name for _, name in socket.if_nameindex()]
    if profile.network_interface and profile.network_interface not in interfaces:
        raise MachineError(
            message(
                "launch.unknown-interface",
                "no network interface {interface} here; there are {interfaces}",
                interface=profile.network_interface,
                interfaces=", ".join(interfaces),
            ),
            message(
                "launch.unknown-interface.hint",
                "name the one between the nodes: --set profile.network_interface=NAME",
            ),
        )


def starts_here(profile: Profile) -> bool:
    """On one node."""
    return profile.max_nodes == 1


def waits_for_all(profile: Profile) -> bool:
    """On one node: with several, the command is typed on each."""
    return profile.max_nodes == 1


def build_plan(request: LaunchRequest) -> LaunchPlan:
    """torchrun on this machine; the same command on each of several."""
    profile = request.profile
    if profile.max_nodes == 1:
        # A free port: two runs on one machine never meet. --standalone would do the same, but it goes by the
        # names of the machine and of localhost, which need not resolve.
        rendezvous = [
            "--nnodes=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={LOOPBACK}:0", f"--local-addr={LOOPBACK}"
        ]  # fmt: skip
    else:
        # Nodes whose commands name the same run folder belong together.
        name = hashlib.sha256(str(request.folder).encode()).hexdigest()[:12]
        rendezvous = [
            *rendezvous_options(profile), f"--rdzv-id={name}", f"--rdzv-endpoint={profile.rendezvous}"
        ]  # fmt: skip
    return LaunchPlan(
        request.after_setup([*torchrun_command(request, rendezvous), *request.worker]),
        dict(request.env),
        request.folder,
        rendezvous=profile.rendezvous if profile.max_nodes > 1 else "",
    )


def torchrun_command(request: LaunchRequest, rendezvous: Sequence[str]) -> list[str]:
    """`python -P -m torch.distributed.run …`, up to the worker.

    Args:
        request: what is started.
        rendezvous: the options that say how nodes meet.
    """
    profile = request.profile
    words = [*request.python, "-m", "torch.distributed.run", *rendezvous]
    words.append(f"--nproc-per-node={profile.processes_per_node}")
    if profile.max_restarts:
        words.append(f"--max-restarts={profile.max_restarts}")
    if profile.binding != "none":
        words.append(f"--numa-binding={_NUMA_BINDINGS[profile.binding]}")
    return words


def rendezvous_options(profile: Profile) -> list[str]:
    """Options for nodes that meet, without the address."""
    seconds = max(1, round(profile.rendezvous_minutes * 60))
    # read_timeout: a first node that cannot be reached is reported within a minute.
    timeouts = f"join_timeout={seconds},read_timeout={min(seconds, 30)}"
    if len(profile.node_range) > 1:  # once the least have come, so long for more
        timeouts += f",last_call_timeout={min(max(1, seconds // 4), 30)}"
    return [f"--nnodes={profile.nodes}", "--rdzv-backend=c10d", f"--rdzv-conf={timeouts}"]


def cores_per_process(profile: Profile, cores: int) -> int:
    """This machine's cores, shared by its processes."""
    return cores // profile.processes_per_node


def worker_environment(profile: Profile) -> dict[str, str]:
    """What torch's elastic agent reads."""
    env = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(STOP_TIMEOUT)}  # between TERM and KILL; 30 s without it
    if profile.max_nodes > 1:
        # Else a host that was booted again waits in vain for the address where the others met without it.
        env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    return env


def rank_from_environment(profile: Profile, environ: Mapping[str, str]) -> RankInfo:
    """From RANK, WORLD_SIZE, MASTER_ADDR, which torchrun sets."""
    return rank_from_torchrun(environ)


def stop_exit_code(profile: Profile, *, is_main_process: bool) -> int:
    """0: torchrun would take 75 for a failure, and start the workers again."""
    return 0


def world_size_hint(profile: Profile) -> Message:
    """A profile of another size."""
    return message(
        "launch.other-world-size.hint",
        "use a profile with as many processes, or --set profile.processes_per_node=N",
    )
