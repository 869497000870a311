"""Run -> launch plan: pure. What is started, where and with what, as plain data."""

from __future__ import annotations

import shlex
import signal
from dataclasses import dataclass, replace
from pathlib import Path

from kovqa_core.launch.launchers import slurm, torchrun
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.run import RUN_FILE, WorkerJob

WORKER_FILE = Path(__file__).resolve().parents[1] / "worker.py"
JOB_SCRIPT = "job.sh"
STOP_TIMEOUT = 120  # seconds torchrun and we give workers that were asked to stop to write their checkpoint


@dataclass(frozen=True)
class LaunchPlan:
    """A command as plain data."""

    argv: list[str]
    env: dict[str, str]
    folder: Path
    script: str | None = None  # sbatch: the text of RUN/job.sh
    stop: signal.Signals = signal.SIGTERM  # what asks the workers behind this command to stop
    meeting: str = ""  # where the nodes of a torchrun over several meet
    again: str = ""  # how to go on after a failure; empty: with the last checkpoint

    def shell(self) -> str:
        """The command, to be pasted into a shell."""
        variables = [f"{key}={shlex.quote(value)}" for key, value in self.env.items()]
        return " ".join([*variables, *map(shlex.quote, self.argv)])


def plan_launch(
    run: WorkerJob, python: str, cores: int, folder: Path | None = None, file: str = RUN_FILE
) -> LaunchPlan:
    """The launch of a run, by the launcher that its profile names.

    Args:
        run: what to start.
        python: the interpreter that runs kovqa, and the workers where the profile names no other.
        cores: CPU cores of this machine, shared by its processes (SLURM gives a task its own).
        folder: where a batch job starts; None: here.
        file: what the workers read, in the run's folder.
    """
    profile = run.profile
    env = worker_environment(profile, cores)
    worker = [str(WORKER_FILE), str(run.folder / file)]
    interpreter = [*profile.command_prefix, profile.python or python, "-P"]
    if profile.launcher == "torchrun":
        argv = [*interpreter, *torchrun.torchrun_options(profile, run.folder), *worker]
        meeting = profile.rendezvous if profile.nodes > 1 else ""
        return LaunchPlan(_with_setup(profile.setup, argv), env, run.folder, meeting=meeting)
    if profile.slurm.tasks == "node":
        argv = slurm.torchrun_per_node(
            [*interpreter, *torchrun.torchrun_options(profile, run.folder), *worker], run.folder
        )
    else:
        argv = [*interpreter, "-u", *worker]
    if profile.launcher == "srun":
        argv = [
            "srun",
            *slurm.resource_options(profile),
            *slurm.signal_options(profile, "USR1"),
            *slurm.step_options(profile),
            *argv,
        ]
        argv = _with_setup(profile.setup, argv)
        return LaunchPlan(argv, env, run.folder, stop=signal.SIGUSR1)
    step = ["srun", *slurm.step_options(profile), *argv]
    script = slurm.batch_script(run, env, step, folder or Path.cwd())
    return LaunchPlan(["sbatch", "--parsable", str(run.folder / JOB_SCRIPT)], {}, run.folder, script)


def test_only_plan(launch: LaunchPlan) -> LaunchPlan | None:
    """The plan that only asks SLURM whether it would take the job; None where there is no queue to ask."""
    for tool in ("sbatch", "srun"):
        if tool in launch.argv:
            place = launch.argv.index(tool) + 1
            return replace(launch, argv=[*launch.argv[:place], "--test-only", *launch.argv[place:]])
    return None


def worker_environment(profile: Profile, cores: int) -> dict[str, str]:
    """Variables of the workers; the profile's own win."""
    if profile.launcher == "torchrun":
        each = cores // profile.processes_per_node
    else:
        each = slurm.cpus_per_task(profile) // slurm.processes_per_task(profile)
    networks = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME") if profile.network_interface else ()
    elastic = profile.launcher == "torchrun" or profile.slurm.tasks == "node"
    return {
        "PYTHONSAFEPATH": "1",  # reaches the workers; -P alone would not
        "OMP_NUM_THREADS": str(profile.threads or max(1, each)),
        "TOKENIZERS_PARALLELISM": "false",
        **({"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(STOP_TIMEOUT)} if elastic else {}),
        # Else a host that was booted again waits in vain for the address where the others met without it.
        **({"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} if elastic and profile.nodes > 1 else {}),
        **dict.fromkeys(networks, profile.network_interface),
        **profile.env,
    }


def _with_setup(setup: list[str], argv: list[str]) -> list[str]:
    """A command after a profile's shell lines; the first of them that fails ends it."""
    if not setup:
        return argv
    return ["bash", "-c", "\n".join(["set -e", *setup, 'exec "$@"']), "kovqa", *argv]
