"""Experiment trackers by name (`train.track`): what each needs, and where its records go."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from kovqa_core.errors import MachineError, unknown_name_error
from kovqa_core.messages import Message, message

DEFAULT_TRACKERS = ("tensorboard",)


@dataclass(frozen=True)
class TrackerLibrary:
    """A tracker: what its library is imported as, what installs it, and our module for it."""

    import_name: str
    requirement: str
    module: str


TRACKERS = {
    "tensorboard": TrackerLibrary("tensorboardX", "tensorboardX", "kovqa_core.tracking.tensorboard_tracker"),
    "wandb": TrackerLibrary("wandb", "kovqa[wandb]", "kovqa_core.tracking.wandb_tracker"),
    "mlflow": TrackerLibrary("mlflow", "kovqa[mlflow]", "kovqa_core.tracking.mlflow_tracker"),
    "trackio": TrackerLibrary("trackio", "kovqa[trackio]", "kovqa_core.tracking.trackio_tracker"),
}


def tracker_module(name: str) -> ModuleType:
    """The module of a tracker; its library is imported by what the module does, not by itself."""
    return importlib.import_module(TRACKERS[name].module)


def check_trackers(names: Sequence[str], place: str, *, installed_here: bool) -> None:
    """See that trackers are known, and that their libraries are installed; none is imported.

    Args:
        names: as in `train.track`.
        place: where they were written.
        installed_here: do the workers run with the Python of this process? Then it can tell.

    Raises:
        SettingsError: an unknown name; the nearest known ones are listed.
        MachineError: a library is missing; says how to install it.
    """
    for name in names:
        if name not in TRACKERS:
            problem = message(
                "tracking.unknown-tracker", "{place}: unknown tracker '{name}'", place=place, name=name
            )
            raise unknown_name_error(problem, name, TRACKERS)
    missing = [name for name in names if installed_here and not is_installed(name)]
    if missing:
        left = "[]" if "tensorboard" in missing else "[tensorboard]"
        raise MachineError(
            message(
                "tracking.not-installed",
                "{place}: what these trackers need is not installed here: {names}",
                place=place,
                names=", ".join(missing),
            ),
            message(
                "tracking.not-installed.hint",
                "pip install {requirements}, or train without them: --set train.track={left}",
                requirements=" ".join(f"'{TRACKERS[name].requirement}'" for name in missing),
                left=left,
            ),
        )


def is_installed(name: str) -> bool:
    """Can a tracker's library be found? It is not imported."""
    return importlib.util.find_spec(TRACKERS[name].import_name) is not None


def tracking_notes(
    names: Sequence[str], folder: Path, environ: Mapping[str, str] = os.environ
) -> list[Message]:
    """Where the records of each tracker go, and what they are; nothing for TensorBoard's files alone.

    Args:
        names: as in `train.track`.
        folder: of the run.
        environ: variables of the workers: where they send what is said by the library's own.
    """
    if set(names) <= {"tensorboard"}:
        return []
    places = [tracker_module(name).destination(folder, environ) for name in dict.fromkeys(names)]
    return [
        message(
            "tracking.what-is-recorded",
            "recorded: settings (without the profile's variables and shell lines), git commits, loss, rate, "
            "scores and the validation images in {folder}",
            folder=folder.name,
        ),
        *places,
    ]
