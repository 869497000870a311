"""Weights & Biases: a run of its own kept in files of the run folder, and sent only if the user says so.

`WANDB_MODE=online` sends it, to `WANDB_BASE_URL` as `WANDB_ENTITY` into `WANDB_PROJECT`. What the library would send
by itself (errors, command line, installed packages, changes that are not committed) stays here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.tracking.tracked_run import PROJECT, LoggedValues, ShownSample, TrackedRun, TrackerState

_INIT_SECONDS = 10.0  # of its 90: then its records are kept in files instead
_MODES = ("online", "offline", "shared", "disabled")


def destination(folder: Path, environ: Mapping[str, str]) -> Message:
    """Where its records go."""
    mode = _mode(environ)
    if mode == "offline":
        return message(
            "tracking.wandb-offline",
            "wandb: kept in {folder}, nothing is sent; to upload it: wandb sync {runs}; WANDB_MODE=online sends at once",
            folder=folder / "wandb",
            runs=f"{shell_quote(folder / 'wandb')}/offline-run-*",
        )
    return message(
        "tracking.wandb-mode",
        "wandb: {mode} (WANDB_MODE), kept in {folder}",
        mode=mode,
        folder=folder / "wandb",
    )


def _mode(environ: Mapping[str, str]) -> str:
    mode = environ.get("WANDB_MODE", "")
    return mode if mode in _MODES else "offline"


def set_variables(run: TrackedRun) -> None:
    """Before the library is imported."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # on by default, offline too


def open_tracker(run: TrackedRun, state: TrackerState, warn: Callable[[str], None]) -> WandbRun:
    """Begin the run, or go on with it; where its server does not answer, in files."""
    import wandb

    mode = _mode(os.environ)
    try:
        wandb_run = _init_run(run, state, mode)
    except Exception as error:
        if mode != "online":
            raise
        warn(f"{type(error).__name__}: {error} (kept in files instead: wandb sync)")
        wandb.teardown()  # else its own process still has a run of this id
        wandb_run = _init_run(run, state, "offline")
    wandb_run.config.update({**run.config, **run.tags}, allow_val_change=True)
    return WandbRun(wandb_run)


def _init_run(run: TrackedRun, state: TrackerState, mode: str) -> Any:
    import wandb

    settings = wandb.Settings(
        mode=mode, root_dir=str(run.folder), silent=True, console="off", init_timeout=_INIT_SECONDS,
        disable_git=True, disable_code=True, x_disable_meta=True, x_save_requirements=False,
    )  # fmt: skip
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT), id=state.id, name=run.folder.name, resume="allow",
        settings=settings,
    )  # fmt: skip


class WandbRun:
    """A run of Weights & Biases."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def add_values(self, rows: list[LoggedValues]) -> None:
        """Record points of curves. Its steps must grow; values of one step are one record."""
        for row in rows:
            self._run.log(row.values, step=row.step)

    def add_samples(self, step: int, samples: list[ShownSample]) -> None:
        """Show what was answered at an evaluation."""
        import wandb

        images = [wandb.Image(str(sample.image), caption=sample.caption) for sample in samples]
        self._run.log({"eval/samples": images}, step=step)

    def finish(self, outcome: str, summary: Mapping[str, float]) -> None:
        """End the run."""
        self._run.summary.update({**summary, "outcome": outcome})
        self._run.finish(exit_code=0 if outcome in ("finished", "stopped") else 1)
