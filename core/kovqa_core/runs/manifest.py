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
from kovqa_core.machine.versions import engine_git_state, git_state, machine_facts, package_versions
from kovqa_core.runs.folder import follow_pointer
from kovqa_core.settings.run import Run

MANIFEST_FILE = "manifest.json"
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%z"


def read_launches(folder: Path) -> list[dict[str, Any]]:
    """All launches of a run, oldest first; none where nothing was written or it cannot be read."""
    try:
        found = read_json(folder / MANIFEST_FILE)["launches"] if (folder / MANIFEST_FILE).is_file() else []
    except (KovqaError, KeyError, TypeError):
        return []
    return [launch for launch in found if isinstance(launch, dict)] if isinstance(found, list) else []


@contextlib.contextmanager
def record_launch(run: Run) -> Iterator[None]:
    """Around a training, in the process that holds the run folder: write down how it begins and ends.

    A launch without an end was killed.

    Raises:
        KovqaError: what the training raises; or the folder cannot be written.
    """
    before = read_launches(run.folder)
    entry: dict[str, Any] = {
        "began": _current_time(),
        "from_step": last_checkpoint_step(run.folder),
        "argv": run.argv,
        "folder": str(Path.cwd()),
        "profile": run.profile.name,
        "processes": run.profile.processes,
        "micro_batch": run.micro_batch,
        "accumulate": run.accumulate,
        "data": index_facts(run.recipe.data.index),
        "versions": package_versions(),
        "git": {"engine": engine_git_state(), "folder": git_state(Path.cwd())},
        "machine": machine_facts(),
    }
    _write_manifest(run.folder, [*before, entry])
    try:
        yield
    except BaseException as error:
        entry |= {
            "ended": _current_time(),
            "step": last_checkpoint_step(run.folder),
            **_launch_outcome(error),
        }
        with contextlib.suppress(KovqaError, OSError):  # the failure itself is what to tell
            _write_manifest(run.folder, [*before, entry])
        raise
    entry |= {"ended": _current_time(), "step": last_checkpoint_step(run.folder), "outcome": "finished"}
    _write_manifest(run.folder, [*before, entry])


def _launch_outcome(error: BaseException) -> dict[str, str]:
    if isinstance(error, Stopped):
        return {"outcome": "stopped"}
    message = error.message if isinstance(error, KovqaError) else f"{type(error).__name__}: {error}"
    return {"outcome": "failed", "error": message}


def _write_manifest(folder: Path, entries: list[dict[str, Any]]) -> None:
    write_json(folder / MANIFEST_FILE, {"schema": 1, "launches": entries})


def _current_time() -> str:
    return time.strftime(_TIME_FORMAT)


def parse_time(written: str) -> float:
    """Seconds since 1970 of a time as it stands in a manifest; 0 for what is none."""
    try:
        return datetime.strptime(written, _TIME_FORMAT).timestamp()
    except ValueError:
        return 0.0


def last_checkpoint_step(folder: Path) -> int:
    """Optimizer steps of the last checkpoint; 0 without one."""
    last = follow_pointer(folder, "last")
    number = last.name.removeprefix("step-") if last else ""
    return int(number) if number.isdecimal() else 0


# ------------------------------------------------------------------------------- the facts


def index_facts(index: str | None) -> dict[str, Any]:
    """Folder, fingerprint and numbers of rows of an index; what is not there is None."""
    about = Path(index or "") / "index.json"
    try:
        known = read_json(about) if index and about.is_file() else {}
    except KovqaError:
        known = {}
    return {"index": index, "fingerprint": known.get("fingerprint"), "rows": known.get("rows")}
