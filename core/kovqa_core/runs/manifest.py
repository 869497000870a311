"""`manifest.json`: every launch of a run, as the process that did it saw the world.

`run.yaml` says what was asked; this says what happened: when, on which machine, with which versions,
which code, which data, and how it ended. A resumed run has one entry more.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from kovqa_core.errors import KovqaError, Stopped
from kovqa_core.files import read_json, write_json
from kovqa_core.machine.versions import engine_git, git, here, versions
from kovqa_core.runs.folder import pointed
from kovqa_core.settings.run import Run

FILE = "manifest.json"
_TIME = "%Y-%m-%dT%H:%M:%S%z"


def launches(folder: Path) -> list[dict[str, Any]]:
    """All launches of a run, oldest first; none where nothing was written or it cannot be read."""
    try:
        found = read_json(folder / FILE)["launches"] if (folder / FILE).is_file() else []
    except (KovqaError, KeyError, TypeError):
        return []
    return [launch for launch in found if isinstance(launch, dict)] if isinstance(found, list) else []


@contextlib.contextmanager
def launched(run: Run) -> Iterator[None]:
    """Around a training, in the process that holds the run folder: write down how it begins and ends.

    A launch without an end was killed.

    Raises:
        KovqaError: what the training raises; or the folder cannot be written.
    """
    before = launches(run.folder)
    entry: dict[str, Any] = {
        "began": _now(),
        "from_step": step(run.folder),
        "argv": run.argv,
        "folder": str(Path.cwd()),
        "profile": run.profile.name,
        "processes": run.profile.processes,
        "micro_batch": run.micro_batch,
        "accumulate": run.accumulate,
        "data": data(run.recipe.data.index),
        "versions": versions(),
        "git": {"engine": engine_git(), "folder": git(Path.cwd())},
        "machine": here(),
    }
    _write(run.folder, [*before, entry])
    try:
        yield
    except BaseException as error:
        entry |= {"ended": _now(), "step": step(run.folder), **_outcome(error)}
        with contextlib.suppress(KovqaError, OSError):  # the failure itself is what to tell
            _write(run.folder, [*before, entry])
        raise
    entry |= {"ended": _now(), "step": step(run.folder), "outcome": "finished"}
    _write(run.folder, [*before, entry])


def _outcome(error: BaseException) -> dict[str, str]:
    if isinstance(error, Stopped):
        return {"outcome": "stopped"}
    message = error.message if isinstance(error, KovqaError) else f"{type(error).__name__}: {error}"
    return {"outcome": "failed", "error": message}


def _write(folder: Path, entries: list[dict[str, Any]]) -> None:
    write_json(folder / FILE, {"schema": 1, "launches": entries})


def _now() -> str:
    return time.strftime(_TIME)


def seconds(written: str) -> float:
    """Seconds since 1970 of a time as it stands in a manifest; 0 for what is none."""
    try:
        return datetime.strptime(written, _TIME).timestamp()
    except ValueError:
        return 0.0


def step(folder: Path) -> int:
    """Optimizer steps of the last checkpoint; 0 without one."""
    last = pointed(folder, "last")
    number = last.name.removeprefix("step-") if last else ""
    return int(number) if number.isdecimal() else 0


# ------------------------------------------------------------------------------- the facts


def data(index: str | None) -> dict[str, Any]:
    """Folder, fingerprint and numbers of rows of an index; what is not there is None."""
    about = Path(index or "") / "index.json"
    try:
        known = read_json(about) if index and about.is_file() else {}
    except KovqaError:
        known = {}
    return {"index": index, "fingerprint": known.get("fingerprint"), "rows": known.get("rows")}
