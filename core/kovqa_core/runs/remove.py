"""`kovqa runs rm`: run folders go whole or not at all, and none in which somebody works.

A folder loses its name by one rename, into `.removed-runs` beside it, and what is in it goes afterwards: whoever is
killed between has no half of a run. The next removal beside it clears what is left there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.distributed.run_lock import claim_run_folder
from kovqa_core.errors import SettingsError
from kovqa_core.files import disk_errors
from kovqa_core.messages import message
from kovqa_core.runs.folder import RUNS_FOLDER, is_run_active
from kovqa_core.runs.near_runs import unknown_run_name_error
from kovqa_core.runs.slurm_job import query_job_states, read_slurm_job
from kovqa_core.runs.step_folders import list_step_folders
from kovqa_core.runs.step_lease import is_step_read
from kovqa_core.runs.summary import RunSummary, summarise_runs
from kovqa_core.settings.run import RUN_FILE

REMOVED_FOLDER = ".removed-runs"
_MAX_TRIES = 20  # another removal beside ours may take the empty folder away between two steps


@dataclass(frozen=True)
class RemovableRun:
    """A run that may be removed.

    Attributes:
        summary: the run in one line.
        size: bytes of its files.
        checkpoints: number of its step folders.
    """

    summary: RunSummary
    size: int
    checkpoints: int

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.summary.folder


def plan_removal(names: Sequence[str], root: Path = RUNS_FOLDER) -> list[RemovableRun]:
    """The runs of these names, seen to be runs in which nobody works; nothing is changed.

    Args:
        names: names below `root`, or paths.
        root: the folder of run folders.

    Raises:
        SettingsError: one is not a run folder, is a link, or is running, queued or read.
    """
    folders = list(dict.fromkeys(_named_folder(name, root) for name in names))
    runs = []
    for summary in summarise_runs(folders):
        _require_idle(summary)
        steps = list_step_folders(summary.folder)
        runs.append(RemovableRun(summary, _count_bytes(summary.folder), len(steps)))
    return runs


def remove_run(run: RemovableRun) -> None:
    """Remove a run folder with all that is in it.

    Raises:
        SettingsError: somebody has begun to work in it meanwhile; it stays as it is.
        MachineError: the disk refuses.
    """
    folder = run.folder
    with disk_errors(folder):
        with claim_run_folder(folder, joint=False, wait=False):
            (summary,) = summarise_runs([folder])
            _require_idle(summary)
            removed = _take_name(folder)
        # Without the lock: NFS keeps the name of a file that is open, and with it the folder.
        shutil.rmtree(removed, ignore_errors=True)
        with contextlib.suppress(OSError):  # another removal is under way beside it
            removed.parent.rmdir()


def _take_name(folder: Path) -> Path:
    """Where a folder lies once it has lost its name: the one step after which it is gone."""
    bin_folder = folder.parent / REMOVED_FOLDER
    for tries_left in reversed(range(_MAX_TRIES)):
        bin_folder.mkdir(exist_ok=True)
        removed = bin_folder / folder.name
        shutil.rmtree(removed, ignore_errors=True)  # of a removal that was killed
        try:
            return folder.rename(removed)
        except FileNotFoundError:
            if not tries_left or not folder.exists():
                raise
    raise AssertionError  # the last try returns or raises


def _named_folder(name: str, root: Path) -> Path:
    """The run folder of a name or path; unlike `find_run`, no path into a run stands for all of it.

    Raises:
        SettingsError: it is not a run folder, or a link to one.
    """
    candidates = [path for path in (Path(name), root / name) if os.path.lexists(path)]
    folder = next((path for path in candidates if (path / RUN_FILE).is_file()), None)
    if folder is None and candidates:
        raise SettingsError(
            message("runs.not-a-run", "{folder} is not a run folder: it has no {file}", folder=candidates[0], file=RUN_FILE),
            message("runs.not-a-run.hint", "only whole runs are removed; list them with kovqa runs"),
        )  # fmt: skip
    if folder is None:
        raise unknown_run_name_error(name, root)
    if folder.is_symlink():
        raise SettingsError(
            message("runs.linked-run", "{folder} is a link to {target}", folder=folder, target=folder.readlink()),
            message("runs.linked-run.hint", "links are not followed: name the folder itself, or remove the link with rm"),
        )  # fmt: skip
    here = Path.cwd()
    if folder.resolve() in (here, *here.parents):
        raise SettingsError(
            message("runs.inside-run", "this command was started inside of {folder}", folder=folder),
            message("runs.inside-run.hint", "change to another folder first"),
        )
    inner_runs = (path for path in folder.glob(f"*/{RUN_FILE}") if not path.parent.is_symlink())
    if inner := next(inner_runs, None):
        raise SettingsError(
            message("runs.holds-runs", "{folder} holds other runs, such as {inner}", folder=folder, inner=inner.parent.name),
            message("runs.holds-runs.hint", "move them elsewhere, or remove them first"),
        )  # fmt: skip
    return folder


def _require_idle(run: RunSummary) -> None:
    """See that nobody trains in a run folder, waits to, or reads a checkpoint of it.

    Raises:
        SettingsError: somebody does.
    """
    if run.state == "running" or is_run_active(run.folder):
        raise SettingsError(
            message("runs.remove-running", "{folder} is running", folder=run.folder),
            message("runs.remove-running.hint", "stop it first, or wait until it has ended"),
        )
    # Asked for each run: in a list, that of a finished one is not, and it may be queued for more steps.
    job = read_slurm_job(run.folder)
    state = query_job_states([job]).get(job.number) if job else None
    if job and state and (state.is_queued or state.is_running):
        raise SettingsError(
            message(
                "runs.remove-queued",
                "{folder} is job {job} of SLURM: {state}",
                folder=run.folder,
                job=job.number,
                state=state,
            ),
            message("runs.remove-queued.hint", "end the job first: scancel {job}", job=job.number),
        )
    read = next((step for step in list_step_folders(run.folder) if is_step_read(step)), None)
    if read is not None:
        raise SettingsError(
            message("runs.remove-read", "{step} is being read by another command", step=read),
            message("runs.remove-read.hint", "try again when that has ended"),
        )


def _count_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):  # goes into no link
        with contextlib.suppress(OSError):
            total += path.lstat().st_size if path.is_symlink() or path.is_file() else 0
    return total
