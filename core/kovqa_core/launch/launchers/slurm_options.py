"""What srun and sbatch have in common: a profile's options, and what workers find in a SLURM job.

Sources: the manual pages srun(1), sbatch(1), scontrol(1); docs/sources/launching.md, R10 to R17.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from kovqa_core.distributed.rank_info import RankInfo, rank_from_slurm, rank_from_torchrun
from kovqa_core.errors import MachineError, Stopped
from kovqa_core.launch.launchers import torchrun
from kovqa_core.launch.launchers.protocol import LaunchRequest
from kovqa_core.messages import Message, message
from kovqa_core.runs.folder import ERROR_FILE
from kovqa_core.settings.profile import Profile

# srun's names of what torchrun calls a NUMA binding.
_CPU_BIND_VALUES = {"node": "ldoms", "socket": "sockets", "cores": "cores"}

NODE_SCRIPT = Path(__file__).resolve().with_name("node.sh")


def has_torchrun_per_node(profile: Profile) -> bool:
    """Does each node get one task that starts torchrun, instead of one task per process?"""
    return profile.slurm.tasks == "node"


def processes_per_task(profile: Profile) -> int:
    """Training processes of one srun task."""
    return profile.processes_per_node if has_torchrun_per_node(profile) else 1


def cpus_per_task(profile: Profile) -> int:
    """CPU cores of one srun task."""
    per_process = profile.loader_workers + 1
    return profile.slurm.cpus_per_task or per_process * processes_per_task(profile)


# ----------------------------------------------------------------------------- command lines


def resource_options(profile: Profile) -> list[str]:
    """What a job is given, as options of sbatch, or of an srun that makes its own allocation."""
    slurm = profile.slurm
    values = {"partition": slurm.partition, "account": slurm.account, "qos": slurm.qos, "time": slurm.time,
              "mem": slurm.memory}  # fmt: skip
    return [*(f"--{name}={value}" for name, value in values.items() if value), *slurm.options]


def task_options(profile: Profile) -> list[str]:
    """Nodes, tasks, cores and GPUs: for sbatch, and again for srun, which does not inherit all of it (R11)."""
    slurm = profile.slurm
    tasks = profile.processes_per_node // processes_per_task(profile)
    words = [f"--nodes={profile.nodes}", f"--ntasks-per-node={tasks}"]
    words.append(f"--cpus-per-task={cpus_per_task(profile)}")
    if profile.device == "cuda" and slurm.gpus != "none":
        gpu_type = f"{slurm.gpu_type}:" if slurm.gpu_type else ""
        gpus = f"{gpu_type}{profile.processes_per_node}"
        words.append(f"--gres=gpu:{gpus}" if slurm.gpus == "gres" else f"--gpus-per-node={gpus}")
    return words


def signal_options(profile: Profile, signal: str) -> list[str]:
    """The signal before the time limit: "USR1" to the steps, "B:USR1" to the batch script alone."""
    seconds = profile.slurm.signal_seconds
    return [f"--signal={signal}@{seconds}"] if seconds else []


def step_options(profile: Profile) -> list[str]:
    """srun's options for the workers: the environment whole, and one failure ends them all."""
    bind = [f"--cpu-bind={_CPU_BIND_VALUES[profile.binding]}"] if profile.binding != "none" else []
    return [*task_options(profile), *bind, "--kill-on-bad-exit=1", "--export=ALL"]


def task_command(request: LaunchRequest) -> list[str]:
    """What each srun task runs: a worker, or a torchrun that meets the other nodes' at the job's first host."""
    if not has_torchrun_per_node(request.profile):
        return [*request.python, "-u", *request.worker]
    # node.sh adds the address, which is known inside the job only.
    command = torchrun.torchrun_command(request, torchrun.rendezvous_options(request.profile))
    return ["bash", str(NODE_SCRIPT), str(request.folder / ERROR_FILE), *command, *request.worker]


# --------------------------------------------------------------- the same for both launchers


def settings_problem(profile: Profile) -> Message | None:
    """SLURM itself refuses what does not go together."""
    return None


def check_slurm_tools(profile: Profile, nearest_profile: Callable[[], str]) -> None:
    """See that the launcher's own command and scontrol are here.

    Raises:
        MachineError: one of them is missing.
    """
    missing = [tool for tool in (profile.launcher, "scontrol") if shutil.which(tool) is None]
    if missing:
        raise MachineError(
            message(
                "launch.no-slurm",
                "profile {profile} starts with {launcher}, and there is no {tool} here",
                profile=profile.name,
                launcher=profile.launcher,
                tool=missing[0],
            ),
            message(
                "launch.no-slurm.hint",
                "log in where SLURM is, or use --profile {profile}",
                profile=nearest_profile(),
            ),
        )


def starts_here(profile: Profile) -> bool:
    """Never: SLURM chooses the machine."""
    return False


def cores_per_process(profile: Profile, cores: int) -> int:
    """Of what SLURM gives a task; this machine's cores do not matter."""
    return cpus_per_task(profile) // processes_per_task(profile)


def worker_environment(profile: Profile) -> dict[str, str]:
    """torchrun's variables, where one runs on each node."""
    return torchrun.worker_environment(profile) if has_torchrun_per_node(profile) else {}


def rank_from_environment(profile: Profile, environ: Mapping[str, str]) -> RankInfo:
    """From torchrun's variables where it started the worker, else from SLURM's. Never guessed from what is set (R10)."""
    return rank_from_torchrun(environ) if has_torchrun_per_node(profile) else rank_from_slurm(environ)


def stop_exit_code(profile: Profile, *, is_main_process: bool) -> int:
    """75 from the first task alone: srun would kill the others for theirs. 0 below torchrun: node.sh turns it into 75."""
    return Stopped.exit_code if is_main_process and not has_torchrun_per_node(profile) else 0


def world_size_hint(profile: Profile) -> Message:
    """An allocation with as many tasks as the profile has processes, where tasks are the processes."""
    if has_torchrun_per_node(profile):
        return torchrun.world_size_hint(profile)
    return message(
        "launch.other-task-count.hint",
        "start kovqa outside of salloc, or with as many tasks as the profile has processes: "
        "salloc --nodes={nodes} --ntasks={processes} (unset SLURM_NTASKS, if you set it)",
        nodes=profile.nodes,
        processes=profile.processes,
    )
