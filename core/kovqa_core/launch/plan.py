"""Run -> launch plan: pure. What is started, where and with what, as plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from kovqa_core.launch.launchers import find_launcher
from kovqa_core.launch.launchers.protocol import Launcher, LaunchPlan, LaunchRequest
from kovqa_core.machine.gpu_environment import gpu_environment
from kovqa_core.settings.code_consent import TRUST_VARIABLE
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.run import RUN_FILE, WorkerJob

WORKER_FILE = Path(__file__).resolve().parents[1] / "worker.py"

_THREADS_VARIABLE = "OMP_NUM_THREADS"
_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


def plan_launch(
    job: WorkerJob,
    python: str,
    cores: int,
    start_folder: Path | None = None,
    file_name: str = RUN_FILE,
    environ: Mapping[str, str] = _NO_ENVIRONMENT,
    *,
    trust_code: bool = False,
) -> LaunchPlan:
    """The launch of a run or of a table to answer, by the launcher that its profile names.

    Args:
        job: what to start.
        python: the interpreter that runs kovqa, and the workers where the profile names no other.
        cores: CPU cores of this machine, shared by its processes (SLURM gives a task its own).
        start_folder: where a batch job starts; None: here.
        file_name: what the workers read, in the job's folder.
        environ: of the user; what it says of threads and GPUs is kept.
        trust_code: was this very command told that code of the base model may run?

    Raises:
        SettingsError: unknown launcher, or a path that it cannot take.
    """
    profile = job.profile
    launcher = find_launcher(profile)
    request = LaunchRequest(
        job=job,
        python=[*profile.command_prefix, profile.python or python, "-P"],
        worker=[str(WORKER_FILE), str(job.folder / file_name)],
        env=_with_code_consent(worker_environment(profile, launcher, cores, environ), trust_code=trust_code),
        start_folder=start_folder or Path.cwd(),
    )
    return launcher.build_plan(request)


def worker_environment(
    profile: Profile, launcher: Launcher, cores: int, environ: Mapping[str, str] = _NO_ENVIRONMENT
) -> dict[str, str]:
    """Variables of the workers; the profile's own win.

    Args:
        profile: the machine.
        launcher: the one that it names.
        cores: CPU cores of this machine.
        environ: of the user.
    """
    networks = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME") if profile.network_interface else ()
    return {
        "PYTHONSAFEPATH": "1",  # reaches the workers; -P alone would not (docs/sources/launching.md, R5)
        "PYTHONUTF8": "1",  # whatever the locale of a node: paths and texts hold Hangul
        _THREADS_VARIABLE: _thread_count(profile, launcher.cores_per_process(profile, cores), environ),
        "TOKENIZERS_PARALLELISM": "false",
        **_gpu_variables(profile, environ),
        **launcher.worker_environment(profile),
        **dict.fromkeys(networks, profile.network_interface),
        **profile.env,
    }


def _with_code_consent(variables: dict[str, str], *, trust_code: bool) -> dict[str, str]:
    """A profile's own variables do not decide it: a profile is a file."""
    kept = {name: value for name, value in variables.items() if name != TRUST_VARIABLE}
    return {**kept, TRUST_VARIABLE: "1"} if trust_code else kept


def _thread_count(profile: Profile, cores: int, environ: Mapping[str, str]) -> str:
    """OMP_NUM_THREADS of one process: the profile's, else the user's, else its cores without those of its loaders."""
    if profile.threads:
        return str(profile.threads)
    typed = environ.get(_THREADS_VARIABLE, "")
    if re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", typed):  # a list is for nested parallel regions
        return typed
    # A loader process computes, too, on one thread (torch sets it so).
    return str(max(1, cores - profile.loader_workers))


def _gpu_variables(profile: Profile, environ: Mapping[str, str]) -> dict[str, str]:
    # A profile's own allocator settings stand under either of two names: they count as set.
    known = {**environ, **profile.env}
    return gpu_environment(known, deterministic=profile.deterministic) if profile.device == "cuda" else {}
