"""What became of runs: one line for each below a folder, or all about one. Reads small files only.

Run folders may be half, broken, or of another version: nothing here fails because of that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kovqa_core.errors import KovqaError, unknown_name_error
from kovqa_core.files import read_json
from kovqa_core.messages import message
from kovqa_core.paths import settings_files
from kovqa_core.runs import manifest
from kovqa_core.runs.folder import (
    ERROR_FILE,
    LOG_FILE,
    RUNS_FOLDER,
    follow_pointer,
    is_run_active,
    read_result,
)
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import Kind
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.run import RUN_FILE, Run, read_run

UNREADABLE_ERRORS = (
    OSError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
)  # what valid JSON of other contents leads to
RunState = Literal["finished", "running", "stopped", "failed", "planned", "broken"]


@dataclass(frozen=True)
class RunSummary:
    """One run in one line."""

    folder: Path
    state: RunState
    begun: float  # seconds since 1970, of its newest launch or, without one, of its settings
    recipe: str = ""
    family: str = ""
    task: str = ""
    profile: str = ""
    data: str = ""  # index folder
    steps: int = 0
    total: int | None = None  # None: only known when it is finished
    best: float | None = None  # score
    error: str = ""  # why it failed, or why it cannot be read


@dataclass(frozen=True)
class CheckpointSummary:
    """One step folder."""

    name: str
    size: int  # bytes
    last: bool
    best: bool
    resumable: bool


@dataclass(frozen=True)
class SettingChange:
    """A setting of a run that is not its recipe's, or (`profile.…`) not its profile's."""

    key: str
    usual: Any
    value: Any
    origin: str


@dataclass(frozen=True)
class RunDetails:
    """All about one run."""

    summary: RunSummary
    run: Run | None
    changed: list[SettingChange] | None  # from the recipe and profile of its names; None: they are not here
    scores: list[dict[str, Any]]  # evaluations, oldest first
    checkpoints: list[CheckpointSummary]
    launches: list[dict[str, Any]]
    detail: str  # of the error


# --------------------------------------------------------------------------------- which


def all_runs(root: Path = RUNS_FOLDER) -> list[RunSummary]:
    """The runs right below a folder, newest first; half and broken ones too."""
    folders = [path for path in root.iterdir() if _is_run_folder(path)] if root.is_dir() else []
    return sorted(map(summarise_run, folders), key=lambda found: (-found.begun, found.folder.name))


def find_run(name: str, root: Path = RUNS_FOLDER) -> Path:
    """The run folder of a path, of a path into it, or of a name below `root`.

    Raises:
        SettingsError: there is none; the nearest names are listed.
    """
    path = Path(name)
    for folder in (path, *([path.parent] if path.exists() else []), root / name):
        if _is_run_folder(folder):
            return folder
    known = [folder.name for folder in root.iterdir() if _is_run_folder(folder)] if root.is_dir() else []
    raise unknown_name_error(
        message("runs.unknown-run", "unknown run '{name}'", name=name),
        name,
        known,
        message("runs.unknown-run.hint", "list them with kovqa runs, or give the path of a run folder"),
    )


def _is_run_folder(folder: Path) -> bool:
    marks = (RUN_FILE, manifest.MANIFEST_FILE, LOG_FILE, ERROR_FILE, "last", "result.json")
    return folder.is_dir() and any((folder / mark).is_file() for mark in marks)


# --------------------------------------------------------------------------------- one line


def summarise_run(folder: Path) -> RunSummary:
    """One run in one line; never fails."""
    try:
        run = read_run(folder / RUN_FILE)
        finished = read_result(folder)
        rows = read_log_records(folder)
        state, error = _run_state(folder, finished)
        at = (
            finished["steps"]
            if finished
            else _latest_step(rows)
            if state == "running"
            else manifest.last_checkpoint_step(folder)
        )
        best = finished["best_score"] if finished else None
    except KovqaError as failure:
        return RunSummary(folder, "broken", _started_at(folder), error=failure.message)
    except UNREADABLE_ERRORS as failure:
        said = f"cannot be read ({type(failure).__name__}: {failure})"
        return RunSummary(folder, "broken", _started_at(folder), error=said)
    scores = [row["best"] for row in _evaluation_records(rows)]
    return RunSummary(
        folder,
        state,
        _started_at(folder),
        run.recipe.name,
        run.recipe.family,
        run.recipe.task,
        run.profile.name,
        run.recipe.data.index or "",
        at,
        at if finished else total_steps(run, manifest.read_launches(folder)),
        scores[-1] if scores and best is None else best,
        error,
    )


def _run_state(folder: Path, finished: Mapping[str, Any] | None) -> tuple[RunState, str]:
    if is_run_active(folder):
        return "running", ""
    if finished:
        return "finished", ""
    error = read_json(folder / ERROR_FILE) if (folder / ERROR_FILE).is_file() else {}
    if error and error.get("kind") != "Stopped":
        return "failed", str(error.get("message", ""))
    launches = manifest.read_launches(folder)
    if not launches and not (folder / "last").is_file() and not (folder / LOG_FILE).is_file():
        return "planned", ""
    killed = launches and "ended" not in launches[-1] and not error
    return "stopped", "killed" if killed else ""


def _started_at(folder: Path) -> float:
    launches = manifest.read_launches(folder)
    if launches:
        return manifest.parse_time(str(launches[-1].get("began", "")))
    try:
        return min(path.stat().st_mtime for path in folder.iterdir())
    except (OSError, ValueError):
        return 0.0


def total_steps(run: Run, launches: list[dict[str, Any]]) -> int | None:
    """Optimizer steps of a whole run, where settings and number of rows say so."""
    optim = run.recipe.optim
    if optim.steps:
        return optim.steps
    rows = (launches[-1].get("data") or {}).get("rows") if launches else None
    if not rows or run.recipe.data.kinds or not optim.epochs:
        return None
    return optim.epochs * (rows.get("train", 0) // optim.global_batch)


def read_log_records(folder: Path) -> list[dict[str, Any]]:
    """Records of a run's log, up to where a kill has torn it."""
    path, found = folder / LOG_FILE, []
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return [row for row in found if isinstance(row, dict)]


def _latest_step(rows: list[dict[str, Any]]) -> int:
    return max((row["step"] for row in rows if isinstance(row.get("step"), int)), default=0)


# --------------------------------------------------------------------------------- all of it


def read_run_details(folder: Path) -> RunDetails:
    """All about one run; never fails."""
    found = summarise_run(folder)
    run = read_run(folder / RUN_FILE) if found.state != "broken" else None
    return RunDetails(
        found,
        run,
        setting_changes(run) if run else None,
        read_evaluations(folder),
        list_checkpoints(folder),
        manifest.read_launches(folder),
        _error_detail(folder),
    )


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Evaluations of a run's log, oldest first."""
    return _evaluation_records(read_log_records(folder))


def _evaluation_records(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row.get("kind") == "eval" and row.keys() >= {"step", "score", "best"}]


def setting_changes(run: Run) -> list[SettingChange] | None:
    """Settings of a run that differ from the recipe and profile of its names, as they are today.

    None: there is no such recipe or profile here to compare with.
    """
    sides: tuple[tuple[Kind, Recipe | Profile], ...] = (("recipes", run.recipe), ("profiles", run.profile))
    found = []
    for kind, settings in sides:
        if settings.name not in settings_files(kind):
            return None
        try:
            usual = flatten_settings(
                (load_recipe if kind == "recipes" else load_profile)(settings.name).model_dump(mode="json")
            )
        except KovqaError:
            return None
        own, before = (
            flatten_settings(settings.model_dump(mode="json")),
            "" if kind == "recipes" else "profile.",
        )
        found += [
            SettingChange(
                before + key,
                usual.get(key),
                own.get(key),
                setting_origin(run, f"{kind.removesuffix('s')}.{key}"),
            )
            for key in sorted({*usual, *own})
            if usual.get(key) != own.get(key)
        ]
    return found


def setting_origin(run: Run, key: str) -> str:
    """Where a setting of a run came from; empty: it is the default."""
    while key and key not in run.origin:
        key = key.rpartition(".")[0]
    return run.origin.get(key, "")


def flatten_settings(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings as one level: {"optim.lr": 1e-3}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, Mapping) and value
        found |= flatten_settings(value, f"{before}{key}.") if inner else {f"{before}{key}": value}
    return found


def list_checkpoints(folder: Path) -> list[CheckpointSummary]:
    """Step folders of a run, oldest first."""
    last, best = follow_pointer(folder, "last"), follow_pointer(folder, "best")
    return [
        CheckpointSummary(
            step.name, _folder_size(step), step == last, step == best, (step / "trainer").is_dir()
        )
        for step in sorted(folder.glob("step-*"))
        if step.is_dir() and step.suffix not in (".part", ".old")
    ]


def _folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _error_detail(folder: Path) -> str:
    try:
        error = read_json(folder / ERROR_FILE) if (folder / ERROR_FILE).is_file() else {}
    except KovqaError:
        return ""
    if not isinstance(error, dict) or error.get("kind") == "Stopped":
        return ""
    return str(error.get("detail", ""))
