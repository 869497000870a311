"""Run -> launch plan: pure. What is started, where and with what, as plain data."""

from __future__ import annotations

from pathlib import Path

from kovqa_core.launch.launchers import find_launcher
from kovqa_core.launch.launchers.protocol import Launcher, LaunchPlan, LaunchRequest
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.run import RUN_FILE, WorkerJob

WORKER_FILE = Path(__file__).resolve().parents[1] / "worker.py"


def plan_launch(
    job: WorkerJob, python: str, cores: int, start_folder: Path | None = None, file_name: str = RUN_FILE
) -> LaunchPlan:
    """The launch of a run or of a table to answer, by the launcher that its profile names.

    Args:
        job: what to start.
        python: the interpreter that runs kovqa, and the workers where the profile names no other.
        cores: CPU cores of this machine, shared by its processes (SLURM gives a task its own).
        start_folder: where a batch job starts; None: here.
        file_name: what the workers read, in the job's folder.

    Raises:
        SettingsError: unknown launcher, or a path that it cannot take.
    """
    profile = job.profile
    launcher = find_launcher(profile)
    request = LaunchRequest(
        job=job,
        python=[*profile.command_prefix, profile.python or python, "-P"],
        worker=[str(WORKER_FILE), str(job.folder / file_name)],
        env=worker_environment(profile, launcher, cores),
        start_folder=start_folder or Path.cwd(),
    )
    return launcher.build_plan(request)


def worker_environment(profile: Profile, launcher: Launcher, cores: int) -> dict[str, str]:
    """Variables of the workers; the profile's own win.

    Args:
        profile: the machine.
        launcher: the one that it names.
        cores: CPU cores of this machine.
    """
    networks = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME") if profile.network_interface else ()
    return {
        "PYTHONSAFEPATH": "1",  # reaches the workers; -P alone would not (docs/sources/launching.md, R5)
        "OMP_NUM_THREADS": str(profile.threads or max(1, launcher.cores_per_process(profile, cores))),
        "TOKENIZERS_PARALLELISM": "false",
        **launcher.worker_environment(profile),
        **dict.fromkeys(networks, profile.network_interface),
        **profile.env,
    }
