"""Trackio: a database in the run folder, or the Space or server that its own variables name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.tracking.secret_texts import without_secrets
from kovqa_core.tracking.tracked_run import PROJECT, LoggedValues, ShownSample, TrackedRun, TrackerState

_FOLDER_VARIABLE = "TRACKIO_DIR"
_REMOTE_VARIABLES = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


def destination(folder: Path, environ: Mapping[str, str]) -> Message:
    """Where its records go."""
    for name in _REMOTE_VARIABLES:
        if place := environ.get(name):
            return message(
                "tracking.trackio-remote",
                "trackio: sent to {place} ({name})",
                place=without_secrets(place, environ),
                name=name,
            )
    database = environ.get(_FOLDER_VARIABLE) or str(folder / "trackio")
    return message(
        "tracking.trackio-files",
        "trackio: a database in {folder}, nothing is sent; look: TRACKIO_DIR={quoted} trackio show",
        folder=database,
        quoted=shell_quote(database),
    )


def set_variables(run: TrackedRun) -> None:
    """Before the library is imported: it reads them then."""
    os.environ.setdefault(_FOLDER_VARIABLE, str(run.folder / "trackio"))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def open_tracker(run: TrackedRun, state: TrackerState, warn: Callable[[str], None]) -> TrackioRun:
    """Begin the run, or go on with it: runs are known by their names."""
    import trackio

    trackio_run = trackio.init(
        project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=f"{run.folder.name}-{state.id}",
        resume="allow", config={**run.config, **run.tags}, embed=False, auto_log_gpu=False, auto_log_cpu=False,
    )  # fmt: skip
    return TrackioRun(trackio_run)


class TrackioRun:
    """A run of Trackio."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def add_values(self, rows: list[LoggedValues]) -> None:
        """Record points of curves."""
        for row in rows:
            self._run.log(row.values, step=row.step)

    def add_samples(self, step: int, samples: list[ShownSample]) -> None:
        """Show what was answered at an evaluation."""
        import trackio

        images = {
            f"eval/sample-{number}": trackio.Image(sample.image, caption=sample.caption)
            for number, sample in enumerate(samples, 1)
        }
        self._run.log(images, step=step)

    def finish(self, outcome: str, summary: Mapping[str, float]) -> None:
        """End the run."""
        if summary:
            self._run.log(dict(summary))
        self._run.finish()
