"""How a run takes up its checkpoint: one process chooses it, all load it, and only then the folder is settled."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from kovqa_core.distributed import process_group
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import ERROR_CLASSES, KovqaError, ModelError
from kovqa_core.files import disk_errors, write_text
from kovqa_core.messages import Message, message
from kovqa_core.runs.best_step import best_of_state
from kovqa_core.runs.folder import LOG_FILE
from kovqa_core.runs.manifest import read_launches
from kovqa_core.runs.resume_point import ResumePoint, checkpoint_problem, find_resume_point, pointer_problem
from kovqa_core.runs.step_folders import is_step_name, read_pointer, step_number
from kovqa_core.runs.validation_samples import SAMPLES_FILE

_SEEN_SECONDS = 120.0  # an NFS client may go by what it knew of a folder for a minute
_RETRY_SECONDS = 1.0


def agree_on_resume_point(folder: Path, rank: RankInfo, seen_seconds: float = _SEEN_SECONDS) -> ResumePoint:
    """The checkpoint that all processes go on from. Collective.

    The first process chooses, and reads all files for it: hosts that share a disk may see it at different
    moments, and each would be right by itself.

    Args:
        folder: of the run.
        rank: place of this process.
        seen_seconds: another process may see the checkpoint so much later.

    Raises:
        ModelError: none can be resumed; or this process does not see the chosen one.
    """
    choice: ResumePoint | tuple[str, str, str] | None = None
    if rank.is_main_process:
        try:
            choice = find_resume_point(folder, checksums=True)
        except KovqaError as error:  # told to all: who waits for an answer must not wait for ever
            choice = (type(error).__name__, error.message, error.hint)
    agreed = process_group.all_gather_objects(choice)[0]
    if isinstance(agreed, tuple):
        name, text, hint = agreed
        raise ERROR_CLASSES[name](text, hint)
    assert agreed is not None
    if agreed.step is not None and not rank.is_main_process:
        _wait_until_seen(agreed.step, rank, seen_seconds)
    return agreed


def _wait_until_seen(step: Path, rank: RankInfo, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (problem := checkpoint_problem(step, checksums=False)) is not None:
        if time.monotonic() > deadline:
            raise ModelError(
                message(
                    "train.checkpoint-not-seen",
                    "rank {rank} on {host} does not see what the first process goes on from: {problem}",
                    rank=rank.rank,
                    host=socket.gethostname(),
                    problem=problem,
                ),
                message(
                    "train.checkpoint-not-seen.hint",
                    "see that all hosts have the same disk at {folder}, and resume again",
                    folder=step.parent,
                ),
            )
        with contextlib.suppress(OSError):
            os.listdir(step.parent)  # asks the server anew  # noqa: PTH208
        time.sleep(_RETRY_SECONDS)


def settle_run_folder(folder: Path, point: ResumePoint) -> list[Message]:
    """Let a run folder say what the run goes on from; the first process does, once all have loaded it.

    Killed at any line, the next resume comes to the same checkpoint. What a killed save left half written is
    removed. Damaged step folders stay until the run reaches their steps again, and writes them anew.

    Args:
        folder: of the run.
        point: where it goes on.

    Returns:
        What people should know.

    Raises:
        SettingsError: the folder cannot be written.
    """
    notes = list(point.notes)
    with disk_errors(folder):
        if point.step is None:
            notes += _keep_earlier_log(folder)
        else:
            if read_pointer(folder, "last") != point.step.name:
                write_text(folder / "last", point.step.name + "\n")
            notes += _mend_best(folder, point.step)
        for leftover in _leftovers(folder):
            shutil.rmtree(leftover, ignore_errors=True)
    return notes


def _mend_best(folder: Path, resumed: Path) -> Iterator[Message]:
    """Let `best` name what the training state calls the best, where it is lost, or of a step still to be made."""
    named = read_pointer(folder, "best")
    problem = pointer_problem(folder, "best")
    if problem is None and step_number(named or "") > step_number(resumed.name):
        problem = message("train.best-ahead", "`best` names {step}, which is still to be made", step=named)
    if problem is None:
        return
    best = best_of_state(resumed)
    if best is not None:
        write_text(folder / "best", best.name + "\n")
        yield message(
            "train.best-mended",
            "{problem}: {step} is the best by the training state",
            problem=problem,
            step=best.name,
        )
    elif named is not None:
        yield message("train.best-lost", "{problem}: the next evaluation sets it again", problem=problem)


def _keep_earlier_log(folder: Path) -> Iterator[Message]:
    """Where checkpoints stood and none is left, the log of what they had learned is kept under another name."""
    log = folder / LOG_FILE
    had_checkpoint = any(max(launch.from_step, launch.step or 0) > 0 for launch in read_launches(folder))
    if not had_checkpoint or not log.is_file() or log.stat().st_size == 0:
        return
    number = 1
    while (kept := folder / f"log-{number}.jsonl").exists():
        number += 1
    if (
        samples := folder / SAMPLES_FILE
    ).is_file():  # first: it is for the log that a killed process comes here again
        samples.rename(folder / f"{samples.stem}-{number}{samples.suffix}")
    log.rename(kept)
    yield message(
        "train.earlier-log-kept",
        "there is no checkpoint any more: beginning anew at step 0; the log so far is kept as {name}",
        name=kept.name,
    )


def _leftovers(folder: Path) -> Iterator[Path]:
    """Step folders that a killed process had half written, or half removed; `step-N.old` may be a user's own copy."""
    for pattern in (".step-*.part", ".step-*.old", "step-*.part"):
        for path in folder.glob(pattern):
            if is_step_name(path.name.lstrip(".").partition(".")[0]) and path.is_dir():
                yield path
