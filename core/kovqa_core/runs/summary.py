"""What became of runs: one line for each below a folder, or all about one. Reads small files only.

Run folders may be half, broken, or of another version: nothing here fails because of that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kovqa_core.errors import KovqaError, unknown
from kovqa_core.files import read_json
from kovqa_core.paths import names
from kovqa_core.runs import manifest
from kovqa_core.runs.folder import ERROR, LOG, RUNS, is_running, pointed, result
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import Kind
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.run import FILE, Run, read_run

ODD = (
    OSError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
)  # what valid JSON of other contents leads to
State = Literal["finished", "running", "stopped", "failed", "planned", "broken"]


@dataclass(frozen=True)
class Summary:
    """One run in one line."""

    folder: Path
    state: State
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
class Checkpoint:
    """One step folder."""

    name: str
    size: int  # bytes
    last: bool
    best: bool
    resumable: bool


@dataclass(frozen=True)
class Change:
    """A setting of a run that is not its recipe's, or (`profile.…`) not its profile's."""

    key: str
    usual: Any
    value: Any
    origin: str


@dataclass(frozen=True)
class Story:
    """All about one run."""

    summary: Summary
    run: Run | None
    changed: list[Change] | None  # from the recipe and profile of its names; None: they are not here
    scores: list[dict[str, Any]]  # evaluations, oldest first
    checkpoints: list[Checkpoint]
    launches: list[dict[str, Any]]
    detail: str  # of the error


# --------------------------------------------------------------------------------- which


def all_runs(root: Path = RUNS) -> list[Summary]:
    """The runs right below a folder, newest first; half and broken ones too."""
    folders = [path for path in root.iterdir() if _is_run(path)] if root.is_dir() else []
    return sorted(map(summary, folders), key=lambda found: (-found.begun, found.folder.name))


def find_run(name: str, root: Path = RUNS) -> Path:
    """The run folder of a path, of a path into it, or of a name below `root`.

    Raises:
        SettingsError: there is none; the nearest names are listed.
    """
    path = Path(name)
    for folder in (path, *([path.parent] if path.exists() else []), root / name):
        if _is_run(folder):
            return folder
    known = [folder.name for folder in root.iterdir() if _is_run(folder)] if root.is_dir() else []
    raise unknown("run", name, known, "list them: kovqa runs, or give the path of a run folder")


def _is_run(folder: Path) -> bool:
    marks = (FILE, manifest.FILE, LOG, ERROR, "last", "result.json")
    return folder.is_dir() and any((folder / mark).is_file() for mark in marks)


# --------------------------------------------------------------------------------- one line


def summary(folder: Path) -> Summary:
    """One run in one line; never fails."""
    try:
        run = read_run(folder / FILE)
        finished = result(folder)
        rows = records(folder)
        state, error = _state(folder, finished)
        at = finished["steps"] if finished else _latest(rows) if state == "running" else manifest.step(folder)
        best = finished["best_score"] if finished else None
    except KovqaError as failure:
        return Summary(folder, "broken", _begun(folder), error=failure.message)
    except ODD as failure:
        said = f"cannot be read ({type(failure).__name__}: {failure})"
        return Summary(folder, "broken", _begun(folder), error=said)
    scores = [row["best"] for row in _evaluated(rows)]
    return Summary(
        folder,
        state,
        _begun(folder),
        run.recipe.name,
        run.recipe.family,
        run.recipe.task,
        run.profile.name,
        run.recipe.data.index or "",
        at,
        at if finished else total(run, manifest.launches(folder)),
        scores[-1] if scores and best is None else best,
        error,
    )


def _state(folder: Path, finished: Mapping[str, Any] | None) -> tuple[State, str]:
    if is_running(folder):
        return "running", ""
    if finished:
        return "finished", ""
    error = read_json(folder / ERROR) if (folder / ERROR).is_file() else {}
    if error and error.get("kind") != "Stopped":
        return "failed", str(error.get("message", ""))
    launches = manifest.launches(folder)
    if not launches and not (folder / "last").is_file() and not (folder / LOG).is_file():
        return "planned", ""
    killed = launches and "ended" not in launches[-1] and not error
    return "stopped", "killed" if killed else ""


def _begun(folder: Path) -> float:
    launches = manifest.launches(folder)
    if launches:
        return manifest.seconds(str(launches[-1].get("began", "")))
    try:
        return min(path.stat().st_mtime for path in folder.iterdir())
    except (OSError, ValueError):
        return 0.0


def total(run: Run, launches: list[dict[str, Any]]) -> int | None:
    """Optimizer steps of a whole run, where settings and number of rows say so."""
    optim = run.recipe.optim
    if optim.steps:
        return optim.steps
    rows = (launches[-1].get("data") or {}).get("rows") if launches else None
    if not rows or run.recipe.data.kinds or not optim.epochs:
        return None
    return optim.epochs * (rows.get("train", 0) // optim.global_batch)


def records(folder: Path) -> list[dict[str, Any]]:
    """Records of a run's log, up to where a kill has torn it."""
    path, found = folder / LOG, []
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return [row for row in found if isinstance(row, dict)]


def _latest(rows: list[dict[str, Any]]) -> int:
    return max((row["step"] for row in rows if isinstance(row.get("step"), int)), default=0)


# --------------------------------------------------------------------------------- all of it


def story(folder: Path) -> Story:
    """All about one run; never fails."""
    found = summary(folder)
    run = read_run(folder / FILE) if found.state != "broken" else None
    return Story(
        found,
        run,
        changes(run) if run else None,
        evaluations(folder),
        checkpoints(folder),
        manifest.launches(folder),
        _detail(folder),
    )


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """Evaluations of a run's log, oldest first."""
    return _evaluated(records(folder))


def _evaluated(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row.get("kind") == "eval" and row.keys() >= {"step", "score", "best"}]


def changes(run: Run) -> list[Change] | None:
    """Settings of a run that differ from the recipe and profile of its names, as they are today.

    None: there is no such recipe or profile here to compare with.
    """
    sides: tuple[tuple[Kind, Recipe | Profile], ...] = (("recipes", run.recipe), ("profiles", run.profile))
    found = []
    for kind, settings in sides:
        if settings.name not in names(kind):
            return None
        try:
            usual = flat(
                (load_recipe if kind == "recipes" else load_profile)(settings.name).model_dump(mode="json")
            )
        except KovqaError:
            return None
        own, before = flat(settings.model_dump(mode="json")), "" if kind == "recipes" else "profile."
        found += [
            Change(before + key, usual.get(key), own.get(key), origin(run, f"{kind.removesuffix('s')}.{key}"))
            for key in sorted({*usual, *own})
            if usual.get(key) != own.get(key)
        ]
    return found


def origin(run: Run, key: str) -> str:
    """Where a setting of a run came from; empty: it is the default."""
    while key and key not in run.origin:
        key = key.rpartition(".")[0]
    return run.origin.get(key, "")


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings as one level: {"optim.lr": 1e-3}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, Mapping) and value
        found |= flat(value, f"{before}{key}.") if inner else {f"{before}{key}": value}
    return found


def checkpoints(folder: Path) -> list[Checkpoint]:
    """Step folders of a run, oldest first."""
    last, best = pointed(folder, "last"), pointed(folder, "best")
    return [
        Checkpoint(step.name, _size(step), step == last, step == best, (step / "trainer").is_dir())
        for step in sorted(folder.glob("step-*"))
        if step.is_dir() and step.suffix not in (".part", ".old")
    ]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _detail(folder: Path) -> str:
    try:
        error = read_json(folder / ERROR) if (folder / ERROR).is_file() else {}
    except KovqaError:
        return ""
    if not isinstance(error, dict) or error.get("kind") == "Stopped":
        return ""
    return str(error.get("detail", ""))
