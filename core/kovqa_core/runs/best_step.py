"""The best checkpoint of a run whose pointer `best` is lost or damaged."""

from __future__ import annotations

from pathlib import Path

from kovqa_core.errors import KovqaError
from kovqa_core.runs.resume_point import resume_candidates
from kovqa_core.runs.step_folders import read_train_state


def best_of_state(step: Path) -> Path | None:
    """The step folder that the training state of another one calls the best; None: it names none that is there.

    Nothing is guessed from the scores that are left: a metric may count upwards or downwards.
    """
    try:
        number = read_train_state(step).get("best_step")
    except KovqaError:
        return None
    best = step.with_name(f"step-{number:06d}") if type(number) is int else None
    return best if best is not None and best.is_dir() else None


def recomputed_best(folder: Path) -> Path | None:
    """The best step folder of a run, by the newest training state that names one."""
    steps = (best_of_state(step) for step in resume_candidates(folder))
    return next((step for step in steps if step is not None), None)
