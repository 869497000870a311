"""Which folder a run gets, and whether it may be written there."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.errors import SettingsError
from kovqa_core.files import read_bytes
from kovqa_core.launch.launchers.protocol import JOB_SCRIPT
from kovqa_core.messages import Message, message
from kovqa_core.runs.folder import (
    ERROR_FILE,
    LOG_FILE,
    MANIFEST_FILE,
    RESULT_FILE,
    RUNS_FOLDER,
    follow_pointer,
    is_run_active,
    was_launched,
)
from kovqa_core.runs.near_runs import with_near_runs
from kovqa_core.runs.validation_samples import SAMPLES_FILE
from kovqa_core.settings.run import RUN_FILE

# What a run writes, replaces and removes; and what marks an output of another command, which is replaced as a whole.
_RUN_ENTRIES = (MANIFEST_FILE, LOG_FILE, SAMPLES_FILE, ERROR_FILE, RESULT_FILE, JOB_SCRIPT, "last", "best")
_OTHER_OUTPUTS = ("index.json", "kovqa.json", "config.json")


@dataclass(frozen=True)
class FolderState:
    """What a plan was made from: if it is not the same any more, the plan is of no use.

    Attributes:
        run: contents of `run.yaml`; None without one.
        last: name of the last checkpoint; None without one.
        finished: is there a result?
    """

    run: bytes | None
    last: str | None
    finished: bool


def folder_state(folder: Path) -> FolderState:
    """What a run folder holds now."""
    path, last = folder / RUN_FILE, follow_pointer(folder, "last")
    run = read_bytes(path) if path.is_file() else None
    return FolderState(run, last.name if last else None, (folder / RESULT_FILE).is_file())


def choose_run_folder(folder: Path | None, recipe: str, *, resume: bool) -> Path:
    """The folder that was named; else a new one, or the newest that is not finished.

    Raises:
        SettingsError: to resume, and there is none.
    """
    if folder is not None:
        return folder
    if not resume:
        return RUNS_FOLDER / f"{Path(recipe).stem}-{time.strftime('%m%d-%H%M%S')}"
    unfinished = [
        path
        for path in RUNS_FOLDER.glob(f"*/{RUN_FILE}")
        if was_launched(path.parent)
        and not (path.parent / RESULT_FILE).exists()
        and not is_run_active(path.parent)
    ]
    if not unfinished:
        raise SettingsError(
            message("plan.no-unfinished-run", "no unfinished run in {folder}/", folder=RUNS_FOLDER),
            message("plan.no-unfinished-run.hint", "name one with -o"),
        )
    # run.yaml is written when a run begins or is resumed: the newest is the one last worked on.
    return max(unfinished, key=lambda path: path.stat().st_mtime).parent


def unknown_run_error(folder: Path) -> SettingsError:
    """The error for `--resume -o FOLDER` where there is no run; it names those beside it that are called alike."""
    return SettingsError(
        with_near_runs(message("plan.no-such-run", "no run in {folder}", folder=folder), folder, RUNS_FOLDER),
        message("plan.no-such-run.hint", "check -o; to begin a run there, name its recipe: -r RECIPE"),
    )


def folder_in_use_error(folder: Path, hint: Message) -> SettingsError:
    """The error for a new run in the folder of another."""
    return SettingsError(message("plan.folder-in-use", "{folder} already holds a run", folder=folder), hint)


def run_active_error(folder: Path) -> SettingsError:
    """The error for a folder in which processes are training."""
    return SettingsError(
        message("plan.run-active", "a run is training in {folder}", folder=folder),
        message("plan.run-active.hint", "wait until it has ended, or choose another -o"),
    )


def require_own_files(folder: Path) -> None:
    """See that what a run writes lies in its folder: of a link, what it points to would be written over.

    Whoever made the folder may not be who goes on with it. The folder itself, logs and checkpoints may be links.

    Raises:
        SettingsError: a file that a training writes is a link.
    """
    logs = sorted(path for path in (folder / "logs").glob("*") if not path.is_dir())
    for path in (folder / RUN_FILE, *(folder / name for name in _RUN_ENTRIES), *logs):
        if path.is_symlink():
            raise SettingsError(
                message(
                    "plan.run-file-is-link",
                    "{path} is a link to {target}, which a training would write over",
                    path=path,
                    target=path.readlink(),
                ),
                message(
                    "plan.run-file-is-link.hint",
                    "put the file itself in its place, or copy the folder: cp -rL; the folder as a whole may be a link",
                ),
            )


def require_free_folder(folder: Path, *, joint: bool) -> None:
    """See that a new run in this folder would neither disturb nor overwrite anything.

    A run that has not come to a checkpoint may be begun again. Other files may lie there (a log that the shell
    writes), if no run would write or remove them.

    Args:
        folder: of the run.
        joint: several hosts type the same command: processes that train there may be those of the others.

    Raises:
        SettingsError: it holds a run, or something that a run would overwrite.
    """
    if not joint and is_run_active(folder):
        raise run_active_error(folder)
    if (folder / "last").exists() or (folder / RESULT_FILE).exists() or any(folder.glob("step-*/kovqa.json")):
        raise folder_in_use_error(
            folder, message("plan.folder-in-use.resume-hint", "add --resume to go on, or choose another -o")
        )
    if (folder / RUN_FILE).is_file():
        return
    for name in (*_RUN_ENTRIES, *_OTHER_OUTPUTS):
        if (folder / name).exists():
            raise SettingsError(
                message(
                    "plan.foreign-files",
                    "{folder} holds {name}, but it is not a run folder",
                    folder=folder,
                    name=name,
                ),
                message(
                    "plan.foreign-files.hint",
                    "choose another -o: a run would overwrite it, or be lost with it",
                ),
            )
