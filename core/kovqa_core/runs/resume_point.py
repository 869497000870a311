"""Which checkpoint a run goes on from: never from nothing while there is one, and never silently from another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.errors import KovqaError, ModelError
from kovqa_core.messages import Message, join_messages, message, shell_quote
from kovqa_core.process_limits import find_limit
from kovqa_core.runs.checksums import damaged_files
from kovqa_core.runs.step_folders import (
    TRAIN_STATE,
    is_step_name,
    list_step_folders,
    missing_checkpoint_files,
    read_pointer,
    read_train_state,
    step_number,
)

_MAX_NAMED_FILES = 3  # in one message
_MAX_POINTER_LENGTH = 40  # of a damaged pointer, in a message


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on.

    Attributes:
        step: the step folder; None: there is no checkpoint yet, and the run begins.
        notes: why it is not the one that `last` names; empty where it is.
    """

    step: Path | None
    notes: tuple[Message, ...] = ()


def find_resume_point(folder: Path, *, checksums: bool) -> ResumePoint:
    """The step folder that a run goes on from: `last`, or the newest one that is whole.

    Args:
        folder: of the run.
        checksums: read all files and compare their checksums; else names and sizes count.

    Raises:
        ModelError: there are step folders, or were when `last` was written, and none can be resumed. A run does
            not begin anew over its checkpoints.
    """
    if (folder / "last").is_dir():
        raise ModelError(
            message("runs.last-is-folder", "{path} is a folder; it should be a file", path=folder / "last"),
            message("runs.last-is-folder.hint", "remove it: the newest whole checkpoint is found without it"),
        )
    pointer = read_pointer(folder, "last")
    candidates = resume_candidates(folder)
    problems: list[Message] = []
    for step in candidates:
        problem = checkpoint_problem(step, checksums=checksums)
        if problem is None:
            return ResumePoint(step, _notes(folder, problems, step))
        problems.append(problem)
    if problems:
        raise _no_whole_checkpoint(folder, problems)
    if pointer is not None and is_step_name(pointer):
        raise _checkpoints_gone(folder, pointer)
    return ResumePoint(None)


def resume_candidates(folder: Path) -> list[Path]:
    """Step folders in the order in which they are tried: that of `last`, then all others, newest first."""
    steps = list_step_folders(folder)[::-1]
    pointer = read_pointer(folder, "last")
    return sorted(steps, key=lambda step: step.name != pointer)  # stable: the others keep their order


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """The step folder that a run would go on from, by names and sizes; None: none is whole."""
    steps = (s for s in resume_candidates(folder) if checkpoint_problem(s, checksums=False) is None)
    return next(steps, None)


def checkpoint_problem(step: Path, *, checksums: bool) -> Message | None:
    """Why a step folder cannot be resumed; None: it can.

    Args:
        step: the folder.
        checksums: read all files; else names and sizes count.
    """
    try:
        missing = missing_checkpoint_files(step)
        if missing:
            return message(
                "runs.incomplete-checkpoint",
                "{step} cannot be resumed: it lacks {missing}",
                step=step,
                missing=name_files(missing),
            )
        if not checksums:
            return None
        if damaged := damaged_files(step):
            return message(
                "runs.damaged-checkpoint",
                "{step} cannot be resumed: not as it was written: {files}",
                step=step,
                files=name_files(damaged),
            )
        _require_own_state(step)
    except (KovqaError, OSError) as error:
        if limit := find_limit(error):  # the checkpoint is not to blame: an older one is not taken for it
            raise limit from None
        text = error.message if isinstance(error, KovqaError) else str(error)
        return message(
            "runs.unreadable-checkpoint",
            "{step} cannot be resumed: {problem}",
            step=step,
            problem=text,
        )
    return None


def _require_own_state(step: Path) -> None:
    """See that the training state is that of this step; earlier versions wrote no checksum that would say it."""
    if read_train_state(step).get("step") != step_number(step.name):
        raise ModelError(
            message(
                "runs.other-state", "{file} is not the training state of this step", file=step / TRAIN_STATE
            )
        )


def name_files(names: Sequence[str]) -> str:
    """The first names of a list, for a message."""
    return ", ".join(names[:_MAX_NAMED_FILES]) + (", …" if names[_MAX_NAMED_FILES:] else "")


def pointer_problem(folder: Path, pointer: str) -> Message | None:
    """What is wrong with `last` or `best`; None: it names a step folder that is there."""
    text = read_pointer(folder, pointer)
    if text is None:
        return message("runs.pointer-missing", "there is no readable file `{pointer}`", pointer=pointer)
    if not text:
        return message("runs.pointer-empty", "`{pointer}` is empty", pointer=pointer)
    if not is_step_name(text):
        return message(
            "runs.pointer-odd",
            "`{pointer}` names no step folder ({text})",
            pointer=pointer,
            text=ascii(text[:_MAX_POINTER_LENGTH]),
        )
    if not (folder / text).is_dir():
        return message(
            "runs.pointer-gone", "`{pointer}` names {step}, which is gone", pointer=pointer, step=text
        )
    return None


def _notes(folder: Path, problems: Sequence[Message], step: Path) -> tuple[Message, ...]:
    lost = pointer_problem(folder, "last")
    reasons = [*([lost] if lost else []), *problems]
    if not reasons:
        return ()
    text = message(
        "runs.goes-on-from",
        "{reasons}: going on from {step}, the newest whole checkpoint",
        reasons=join_messages("; ", reasons),
        step=step.name,
    )
    return (text,)


def _no_whole_checkpoint(folder: Path, problems: Sequence[Message]) -> ModelError:
    return ModelError(
        message("runs.no-whole-checkpoint", "{problems}", problems=join_messages("; ", problems)),
        message(
            "runs.incomplete-checkpoint.hint",
            "put it back, or train it again in a new folder: kovqa runs rerun {folder}",
            folder=shell_quote(folder),
        ),
    )


def _checkpoints_gone(folder: Path, pointer: str) -> ModelError:
    return ModelError(
        message(
            "runs.checkpoints-gone",
            "`last` in {folder} names {step}, and there is no step folder any more",
            folder=folder,
            step=pointer,
        ),
        message(
            "runs.checkpoints-gone.hint",
            "put it back; or begin anew at step 0: rm {last} && kovqa train --resume -o {folder}",
            last=shell_quote(folder / "last"),
            folder=shell_quote(folder),
        ),
    )
