"""`kovqa runs verify`: are a run's checkpoints what was written, and do its small files agree with each other?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.errors import DataError, KovqaError
from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.runs.best_step import best_of_state
from kovqa_core.runs.checksums import damaged_files, has_checksums
from kovqa_core.runs.folder import LOG_FILE, RESULT_FILE, is_run_active, read_result
from kovqa_core.runs.resume_point import name_files, newest_whole_checkpoint, pointer_problem
from kovqa_core.runs.step_folders import (
    is_step_name,
    list_step_folders,
    read_pointer,
    read_train_state,
    step_number,
)
from kovqa_core.runs.step_lease import hold_step_folder
from kovqa_core.runs.verify_log import log_problem
from kovqa_core.settings.run import RUN_FILE, read_run


@dataclass(frozen=True)
class Finding:
    """One thing of a run that was looked at.

    Attributes:
        name: of the file or step folder.
        ok: it is as it should be.
        detail: what is wrong, or worth knowing.
    """

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True)
class RunVerification:
    """What was found in a run folder."""

    folder: Path
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> list[Finding]:
        """What is wrong."""
        return [finding for finding in self.findings if not finding.ok]


def verify_run(folder: Path, on_progress: OnProgress = ignore_progress) -> RunVerification:
    """Read all of a run folder; nothing in it is changed.

    Args:
        folder: of the run.
        on_progress: called with the bytes read of each step folder.
    """
    findings = [*_verify_steps(folder, on_progress)]
    is_active = is_run_active(folder)
    findings += _verify_settings(folder)
    if list_step_folders(folder) or read_pointer(folder, "last") is not None:
        findings += [_verify_pointer(folder, pointer) for pointer in ("last", "best")]
    findings += _verify_log(folder, is_active=is_active)
    if (folder / RESULT_FILE).exists() and not is_active:
        findings.append(_verify_result(folder))
    return RunVerification(folder, tuple(findings))


def require_verified(verifications: Sequence[RunVerification]) -> None:
    """See that nothing was wrong.

    Raises:
        DataError: something was; names the first.
    """
    wrong = [each for each in verifications if each.problems]
    if wrong:
        first = wrong[0].problems[0]
        raise DataError(
            message(
                "runs.not-verified",
                "{count} of {runs} runs are not as they were written; first: {folder}/{name}: {detail}",
                count=len(wrong),
                runs=len(verifications),
                folder=wrong[0].folder,
                name=first.name,
                detail=first.detail,
            ),
            message(
                "runs.not-verified.hint",
                "copy what is damaged again; kovqa train --resume -o {folder} goes on from the newest whole checkpoint",
                folder=shell_quote(wrong[0].folder),
            ),
        )


def _verify_steps(folder: Path, on_progress: OnProgress) -> Iterator[Finding]:
    for step in list_step_folders(folder):
        with hold_step_folder(step) as is_there:
            if is_there:  # a training beside us removes its older ones
                finding = _verify_step(step, on_progress)
                if finding.ok or step.is_dir():
                    yield finding
    for path in sorted([*folder.glob(".step-*.*"), *folder.glob("step-*.part")]):
        if is_step_name(path.name.lstrip(".").partition(".")[0]) and not is_run_active(folder):
            text = message("runs.leftover", "left by a killed process; a resume removes it")
            yield Finding(path.name, ok=True, detail=text)


def _verify_step(step: Path, on_progress: OnProgress) -> Finding:
    stage = message("runs.verifying", "reading {step}", step=f"{step.parent.name}/{step.name}")
    done = 0

    def count_bytes(size: int) -> None:
        nonlocal done
        done += size
        on_progress(Progress(stage, done, unit="bytes"))

    if not (step / "trainer").is_dir():
        text = message("runs.model-only", "a model alone, without checksums: its trainer/ was removed")
        return Finding(step.name, ok=(step / "kovqa.json").is_file(), detail=text)
    try:
        damaged = damaged_files(step, count_bytes)
        if damaged:
            text = message("runs.damaged-files", "not as written: {files}", files=name_files(damaged))
            return Finding(step.name, ok=False, detail=text)
        if not has_checksums(step):
            text = message(
                "runs.no-checksums", "no checksums: an earlier version wrote it; names and sizes are right"
            )
            return Finding(step.name, ok=True, detail=text)
    except (KovqaError, OSError) as error:
        return Finding(step.name, ok=False, detail=_error_text(error))
    return Finding(step.name, ok=True)


def _verify_settings(folder: Path) -> Iterator[Finding]:
    try:
        read_run(folder / RUN_FILE)
    except (KovqaError, OSError) as error:
        yield Finding(RUN_FILE, ok=False, detail=_error_text(error))


def _verify_pointer(folder: Path, pointer: str) -> Finding:
    problem = pointer_problem(folder, pointer)
    if problem is None and pointer == "best":
        problem = _other_best(folder)
    return Finding(pointer, ok=problem is None, detail=problem or read_pointer(folder, pointer) or "")


def _other_best(folder: Path) -> Message | None:
    """That `best` names another step than the training state; not while the last evaluation is still due."""
    last = newest_whole_checkpoint(folder)
    if last is None:
        return None
    try:
        if read_train_state(last).get("evaluation_due"):
            return None
    except KovqaError:
        return None  # said of the step folder
    best, named = best_of_state(last), read_pointer(folder, "best")
    if best is None or best.name == named:
        return None
    return message(
        "runs.other-best",
        "`best` names {named}; by the training state of {last} it is {best}",
        named=named,
        last=last.name,
        best=best.name,
    )


def _verify_log(folder: Path, *, is_active: bool) -> Iterator[Finding]:
    log, last = folder / LOG_FILE, _last_step(folder)
    if not log.exists() and last is None:
        return
    try:
        every: int | None = read_run(folder / RUN_FILE).recipe.log_every
    except (KovqaError, OSError):
        every = None
    checkpoint = step_number(last.name) if last else 0
    problem: str | None
    try:
        problem = log_problem(
            log, checkpoint, every, may_be_torn=is_active or not (folder / RESULT_FILE).exists()
        )
    except OSError as error:
        problem = _error_text(error)
    yield Finding(LOG_FILE, ok=problem is None, detail=problem or "")


def _verify_result(folder: Path) -> Finding:
    try:
        result = read_result(folder)
    except KovqaError as error:
        return Finding(RESULT_FILE, ok=False, detail=_error_text(error))
    last, best = _last_step(folder), read_pointer(folder, "best")
    if result is None:
        text = message("runs.result-no-file", "{name} is not a file", name=RESULT_FILE)
        return Finding(RESULT_FILE, ok=False, detail=text)
    if last is not None and step_number(last.name) != result.steps:
        text = message(
            "runs.other-steps",
            "says {steps} steps, and the last checkpoint is {last}",
            steps=result.steps,
            last=last.name,
        )
        return Finding(RESULT_FILE, ok=False, detail=text)
    if result.best != best and _verify_pointer(folder, "best").ok:  # else the pointer is what is wrong
        text = message(
            "runs.other-result-best",
            "says {best} is the best, and `best` says {named}",
            best=result.best,
            named=best,
        )
        return Finding(RESULT_FILE, ok=False, detail=text)
    return Finding(RESULT_FILE, ok=True)


def _last_step(folder: Path) -> Path | None:
    """The step folder of `last`, damaged or not; without it the newest one."""
    steps = list_step_folders(folder)
    return next((s for s in steps if s.name == read_pointer(folder, "last")), steps[-1] if steps else None)


def _error_text(error: KovqaError | OSError) -> str:
    return error.message if isinstance(error, KovqaError) else str(error.strerror or error)
