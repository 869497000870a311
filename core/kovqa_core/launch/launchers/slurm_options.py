"""What srun and sbatch have in common: a profile's options, and what workers find in a SLURM job.

Sources: the manual pages srun(1), sbatch(1), scontrol(1); docs/sources/launching.md, R10 to R17.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from kovqa_core.distributed.rank_info import RankInfo, rank_from_slurm, rank_from_torchrun
from kovqa_core.errors import KovqaError, MachineError, Stopped, WorkerError
from kovqa_core.launch.launchers import slurm_conflicts, torchrun
from kovqa_core.launch.launchers.protocol import LaunchRequest
from kovqa_core.messages import Message, message
from kovqa_core.runs.events import WaitingEvent, event_line
from kovqa_core.runs.folder import ERROR_FILE, error_values
from kovqa_core.settings.profile import Profile

# srun's names of what torchrun calls a NUMA binding.
_CPU_BIND_VALUES = {"node": "ldoms", "socket": "sockets", "cores": "cores"}

NODE_SCRIPT = Path(__file__).resolve().with_name("node.sh")
NODE_SETUP_SCRIPT = NODE_SCRIPT.with_name("node_setup.sh")


def has_torchrun_per_node(profile: Profile) -> bool:
    """Does each node get one task that starts torchrun, instead of one task per process?"""
    return profile.slurm.tasks == "node"


def processes_per_task(profile: Profile) -> int:
    """Training processes of one srun task."""
    return profile.processes_per_node if has_torchrun_per_node(profile) else 1


def cpus_per_task(profile: Profile) -> int:
    """CPU cores of one srun task."""
    per_process = profile.loader_workers + max(1, profile.threads)
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
    return [
        *task_options(profile),
        *bind,
        *profile.slurm.srun_options,
        "--kill-on-bad-exit=1",
        "--export=ALL",
    ]


def task_command(request: LaunchRequest) -> list[str]:
    """What each srun task runs: the node's setup, then a worker or a torchrun that meets those of the other nodes."""
    profile = request.profile
    if not has_torchrun_per_node(profile):
        return [*_node_setup(request), *request.python, "-u", *request.worker]
    # node.sh adds the address, which is known inside the job only.
    command = torchrun.torchrun_command(request, torchrun.rendezvous_options(profile))
    node = ["bash", str(NODE_SCRIPT), str(request.folder / ERROR_FILE)]
    return [*_node_setup(request), *node, *command, *request.worker]


def _node_setup(request: LaunchRequest) -> list[str]:
    """The words before a task's command that run the profile's `node_setup` once on its node."""
    lines = request.profile.slurm.node_setup
    if not lines:
        return []
    failure = WorkerError(
        message(
            "launch.node-setup-failed",
            "slurm.node_setup failed on {host} with code {code}: {line}",
            host="@HOST@", code="@CODE@", line="@LINE@",
        ),
        message(
            "launch.node-setup-failed.hint",
            "what it printed is in {logs}/node-setup-{host}.log",
            logs=request.folder / "logs", host="@HOST@",
        ),
    )  # fmt: skip
    notice = message(
        "launch.node-setup", "slurm.node_setup runs on every node, see {logs}", logs=request.folder / "logs"
    )
    error = str(request.folder / ERROR_FILE)
    words = ["\n".join(lines), error, _error_text(failure), event_line(WaitingEvent(notice))]
    return ["bash", str(NODE_SETUP_SCRIPT), *words]


def _error_text(error: KovqaError) -> str:
    """An `error.json` as a script writes it, where no Python of ours has begun."""
    return json.dumps({**error_values(error), "rank": -1}, ensure_ascii=False)


# --------------------------------------------------------------- the same for both launchers


def settings_problem(profile: Profile) -> Message | None:
    """A range of nodes, or an option that is kovqa's to set; SLURM itself refuses all else that does not go together."""
    if len(profile.node_range) > 1:
        return message(
            "launch.slurm-without-range",
            "nodes: {nodes} is a range, and a SLURM job has one number of nodes: name it, or use launcher: torchrun",
            nodes=profile.nodes,
        )
    return slurm_conflicts.option_conflict(profile)


def check_slurm_tools(profile: Profile, nearest_profile: Callable[[], str]) -> None:
    """See that the launcher's own command and scontrol are here.

    Raises:
        MachineError: one of them is missing.
        SettingsError: a variable stands for an option that would break the run.
    """
    slurm_conflicts.require_no_input_variable(profile, os.environ)
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


def require_task_per_node(profile: Profile, environ: Mapping[str, str]) -> None:
    """See that srun will start one task on each node, where tasks are torchruns that wait for each other.

    Where tasks are the processes themselves, these count themselves (`launch.world_size`).

    Raises:
        MachineError: the job, or SLURM_NTASKS, has another number of tasks, which srun would take.
    """
    tasks = environ.get("SLURM_NTASKS") or environ.get("SLURM_NPROCS") or str(profile.nodes)
    if has_torchrun_per_node(profile) and tasks != str(profile.nodes):
        raise MachineError(
            message(
                "launch.other-node-count",
                "srun would start {tasks} tasks (SLURM_NTASKS), profile {profile} wants {nodes}: one per node",
                tasks=tasks,
                profile=profile.name,
                nodes=profile.nodes,
            ),
            task_count_hint(profile),
        )


def on_paper(profile: Profile) -> Message:
    """What is to be said of a plan that nobody has asked SLURM about."""
    return message(
        "launch.slurm-on-paper",
        "on paper only: GPUs, memory and cores are what profile {profile} says, not what is in this machine, and SLURM "
        "was not asked whether it has such nodes (--check asks it)",
        profile=profile.name,
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
    """A job with as many tasks as the profile has processes, where tasks are the processes."""
    return torchrun.world_size_hint(profile) if has_torchrun_per_node(profile) else task_count_hint(profile)


def task_count_hint(profile: Profile) -> Message:
    """How a step gets as many tasks as the profile wants: srun takes the number of its job, or SLURM_NTASKS."""
    return message(
        "launch.other-task-count.hint",
        "srun starts as many tasks as its job was given, or as SLURM_NTASKS says: start kovqa outside of the job, or "
        "give the job {tasks} (salloc or #SBATCH --nodes={nodes} --ntasks={tasks}), or unset SLURM_NTASKS",
        nodes=profile.nodes,
        tasks=profile.processes // processes_per_task(profile),
    )
