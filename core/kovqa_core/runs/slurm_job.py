"""The SLURM job of a run folder: its number, and its state as SLURM has it now.

Sources: the manual pages squeue(1), sacct(1); docs/sources/launching.md, R29.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kovqa_core.errors import KovqaError, SettingsError
from kovqa_core.files import write_json
from kovqa_core.messages import message
from kovqa_core.settings.json_file import read_json_as

SLURM_JOB_FILE = "slurm-job.json"  # written when the folder's job was queued
_QUERY_SECONDS = 3.0  # a list of runs does not wait for a busy controller
_QUEUED_STATES = (
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
)
_RUNNING_STATES = ("RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT")


@dataclass(frozen=True)
class SlurmJob:
    """A job by its number (12, or 12_3 in an array), and its name; "": not known.

    A number of another cluster has another name here.
    """

    number: str
    name: str = ""


@dataclass(frozen=True)
class SlurmJobState:
    """What SLURM says of a job; `reason` why it waits, or why it ended."""

    state: str
    reason: str = ""

    @property
    def is_queued(self) -> bool:
        """Does it wait, and may yet train?"""
        return self.state in _QUEUED_STATES

    @property
    def is_running(self) -> bool:
        """Does it hold nodes, or come back to them?"""
        return self.state in _RUNNING_STATES

    def __str__(self) -> str:
        return f"{self.state} ({self.reason})" if self.reason else self.state


def write_slurm_job(folder: Path, job: SlurmJob) -> None:
    """Write down the job that was queued for a run folder."""
    write_json(folder / SLURM_JOB_FILE, {"schema": 1, **asdict(job)})


def read_slurm_job(folder: Path) -> SlurmJob | None:
    """The job that was queued for a run folder last, by sbatch or by an srun that waits; None: none, or not readable."""
    log, file = folder / "logs" / "launcher.log", folder / SLURM_JOB_FILE
    try:
        # srun says its job's number only where it has to wait for nodes.
        text = log.read_text("utf-8", "replace") if log.is_file() else ""
        waits = re.findall(r"^srun: job (\d+) queued", text, re.MULTILINE)
        if waits and not (file.is_file() and file.stat().st_mtime > log.stat().st_mtime):
            return SlurmJob(waits[-1])
    except OSError:
        pass
    try:
        return read_json_as(file, SlurmJob) if file.is_file() else None
    except (KovqaError, OSError):
        return None


def query_job_states(jobs: Sequence[SlurmJob]) -> dict[str, SlurmJobState]:
    """Number -> state of the jobs that SLURM knows: from its queue, else from its accounts.

    Empty where there is no SLURM, or none that answers in time; a job of the same number and another name is not ours.
    """
    names = {job.number: job.name for job in jobs if re.fullmatch(r"\d+(_\d+)?", job.number)}
    if not names:
        return {}
    numbers = ",".join(names)
    found = dict(_query(["squeue", "-h", "-r", "-t", "all", "-j", numbers, "-o", "%i|%T|%r|%j"], names))
    missing = ",".join(number for number in names if number not in found)
    if missing:
        command = ["sacct", "-n", "-X", "-P", "-j", missing, "-o", "JobID,State,Reason,JobName"]
        found |= dict(_query(command, names))
    return found


def _query(command: list[str], names: Mapping[str, str]) -> Iterator[tuple[str, SlurmJobState]]:
    # A filter or a format that the user set for these commands is not meant for kovqa.
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("SQUEUE_", "SACCT_"))}
    try:
        output = subprocess.run(
            command, env=environ, capture_output=True, timeout=_QUERY_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return
    for line in output.decode("utf-8", "replace").splitlines():
        number, state, reason, name = [*line.split("|", 3), "", "", ""][:4]
        if number in names and state and names[number] in ("", name):
            # sacct: "CANCELLED by 1000"
            yield number, SlurmJobState(state.split()[0], "" if reason in ("None", "Unknown") else reason)


def _own_jobs(environ: Mapping[str, str]) -> tuple[str, str]:
    """The job in which this process runs, by both names that a task of an array has."""
    task = f"{environ.get('SLURM_ARRAY_JOB_ID')}_{environ.get('SLURM_ARRAY_TASK_ID')}"
    return environ.get("SLURM_JOB_ID", ""), task


def require_not_queued(folder: Path, environ: Mapping[str, str]) -> None:
    """See that no job of SLURM is to train in a run folder, or does so.

    Args:
        folder: of the run.
        environ: of this process: a command inside that very job goes on with it.

    Raises:
        SettingsError: one is; names it.
    """
    job = read_slurm_job(folder)
    if job is None or job.number in _own_jobs(environ):
        return
    state = query_job_states([job]).get(job.number)
    if state is not None and (state.is_queued or state.is_running):
        raise SettingsError(
            message(
                "runs.folder-is-queued",
                "{folder} is job {job} of SLURM already: {state}",
                folder=folder,
                job=job.number,
                state=state,
            ),
            message(
                "runs.folder-is-queued.hint",
                "let it train (squeue -j {job}), or end it first (scancel {job}), or choose another -o",
                job=job.number,
            ),
        )
