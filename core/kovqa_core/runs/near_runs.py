"""Names of runs that may have been meant, where one is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from kovqa_core.errors import SettingsError, did_you_mean, unknown_name_error
from kovqa_core.messages import Message, message
from kovqa_core.settings.run import RUN_FILE

_MAX_NAMES = 3


def near_runs(name: Path, root: Path) -> list[str]:
    """Paths of runs beside a path or below `root` whose names are like its own, the nearest first.

    Args:
        name: a path, or a bare name.
        root: the folder of run folders.
    """
    folders = {folder.name: str(folder) for folder in _runs_in((root, name.parent))}
    near = difflib.get_close_matches(name.name, folders, n=_MAX_NAMES, cutoff=0.5)
    return [folders[each] for each in near]


def with_near_runs(problem: Message, name: Path, root: Path) -> Message:
    """A problem of a run that is not there, and the runs that may have been meant, if there are any."""
    near = near_runs(name, root)
    return did_you_mean(problem, near) if near else problem


def unknown_run_name_error(name: str, root: Path) -> SettingsError:
    """The error for a run that is neither below `root` nor a path."""
    return unknown_name_error(
        message(
            "runs.unknown-run",
            "unknown run '{name}', neither in {root}/ nor in this folder",
            name=name,
            root=root,
        ),
        Path(name).name,
        sorted({folder.name for folder in _runs_in((root, Path()))}),
        message(
            "runs.unknown-run.hint",
            "list them with kovqa runs, or give the path of a run folder (those of a sweep: --root FOLDER)",
        ),
    )


def _runs_in(places: Iterable[Path]) -> list[Path]:
    return [path.parent for place in places for path in sorted(place.glob(f"*/{RUN_FILE}"))]
