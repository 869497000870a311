"""What became of runs: one line for each below a folder, or all about one. Reads small files only.

Run folders may be half written, broken, or of another version: nothing here fails because of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kovqa_core.errors import KovqaError
from kovqa_core.evaluate.metrics import metric_name
from kovqa_core.messages import Message, message
from kovqa_core.paths import settings_files
from kovqa_core.runs import manifest
from kovqa_core.runs.events import EvaluationEvent
from kovqa_core.runs.folder import (
    ERROR_FILE,
    LOG_FILE,
    MANIFEST_FILE,
    RESULT_FILE,
    RUNS_FOLDER,
    RunResult,
    follow_pointer,
    is_run_active,
    read_error,
    read_result,
    was_launched,
)
from kovqa_core.runs.log_file import (
    evaluations_of,
    latest_step,
    log_problems,
    read_evaluations,
    read_logged_events,
)
from kovqa_core.runs.manifest import RunLaunch
from kovqa_core.runs.near_runs import unknown_run_name_error
from kovqa_core.runs.resume_point import checkpoint_problem
from kovqa_core.runs.slurm_job import SlurmJob, SlurmJobState, query_job_states, read_slurm_job
from kovqa_core.runs.step_folders import list_step_folders
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import Kind
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.run import RUN_FILE, Run, read_run, setting_origin

# What valid JSON of other contents leads to.
UNREADABLE_ERRORS = (OSError, LookupError, TypeError, ValueError, AttributeError)
RunState = Literal["finished", "running", "queued", "stopped", "failed", "planned", "broken"]


@dataclass(frozen=True)
class RunSummary:
    """One run in one line.

    Attributes:
        folder: the run folder.
        state: "queued" waits as a job of SLURM; "planned" has written its settings and nothing else; "broken"
            cannot be read.
        begun: seconds since 1970, of its newest launch or, without one, of its oldest file.
        recipe, family, task, profile: of its settings.
        data: index folder.
        steps: optimizer steps done: logged ones while it runs, else those of the last checkpoint.
        total: steps in all; None where only its end will tell.
        best: best score so far, by `metric`.
        error: why it failed, or why it cannot be read.
        metric: name in the table of metrics; None where the run cannot be read.
        job: number of the SLURM job that was queued for it, or in which it was launched last; "": none.
        job_state: that job's state and its reason, as SLURM says them now; "": it does not.
    """

    folder: Path
    state: RunState
    begun: float
    recipe: str = ""
    family: str = ""
    task: str = ""
    profile: str = ""
    data: str = ""
    steps: int = 0
    total: int | None = None
    best: float | None = None
    error: str = ""
    metric: str | None = None
    job: str = ""
    job_state: str = ""


@dataclass(frozen=True)
class CheckpointSummary:
    """One step folder; its size in bytes, and whether `last` and `best` name it."""

    name: str
    size: int
    last: bool
    best: bool
    resumable: bool


@dataclass(frozen=True)
class SettingChange:
    """A setting of a run that is not its recipe's, or (`profile.…`) not its profile's.

    Values are JSON values; `origin` says where the run's came from ("--set optim.lr=1e-3").
    """

    key: str
    usual: object
    value: object
    origin: str


@dataclass(frozen=True)
class RunDetails:
    """All about one run.

    Attributes:
        summary: the run in one line.
        run: its settings; None where they cannot be read.
        changed: from the recipe and profile of its names; None where these are not here.
        scores: its evaluations, oldest first.
        checkpoints: its step folders, oldest first.
        launches: oldest first.
        detail: of the error it failed with.
        problems: files, or parts of files, that cannot be read and are left out of the rest.
    """

    summary: RunSummary
    run: Run | None
    changed: list[SettingChange] | None
    scores: list[EvaluationEvent]
    checkpoints: list[CheckpointSummary]
    launches: list[RunLaunch]
    detail: str
    problems: Sequence[Message] = ()


# --------------------------------------------------------------------------------- which


def all_runs(root: Path = RUNS_FOLDER) -> list[RunSummary]:
    """The runs right below a folder, newest first; half and broken ones too, but not where nothing has begun."""
    summaries = [
        run
        for run in summarise_runs(_run_folders(root))
        if run.state != "planned" or was_launched(run.folder)
    ]
    return sorted(summaries, key=lambda summary: (-summary.begun, summary.folder.name))


def summarise_runs(folders: Iterable[Path]) -> list[RunSummary]:
    """Runs in one line each, with the states of their SLURM jobs; never fails."""
    return _with_job_states([summarise_run(folder) for folder in folders])


def find_run(name: str, root: Path = RUNS_FOLDER) -> Path:
    """The run folder of a path, of a path into it, or of a name below `root`.

    Raises:
        SettingsError: there is none; the nearest names are listed.
    """
    path = Path(name)
    for folder in (path, *([path.parent] if path.exists() else []), root / name):
        if _is_run_folder(folder):
            return folder
    raise unknown_run_name_error(name, root)


def _run_folders(root: Path) -> list[Path]:
    return [folder for folder in root.iterdir() if _is_run_folder(folder)] if root.is_dir() else []


def _is_run_folder(folder: Path) -> bool:
    names = (RUN_FILE, MANIFEST_FILE, LOG_FILE, ERROR_FILE, "last", RESULT_FILE)
    try:
        return folder.is_dir() and any((folder / name).is_file() for name in names)
    except PermissionError:  # what is in it nobody can say: it is listed, and named as broken
        return True


# --------------------------------------------------------------------------------- one line


def summarise_run(folder: Path) -> RunSummary:
    """One run in one line; never fails."""
    try:
        return _summarise_readable(folder)
    except KovqaError as error:
        reason = error.message
    except UNREADABLE_ERRORS as error:
        reason = message(
            "runs.unreadable", "cannot be read ({kind}: {error})", kind=type(error).__name__, error=error
        )
    return RunSummary(folder, "broken", _begun_at(folder), error=reason)


def _summarise_readable(folder: Path) -> RunSummary:
    run, result, launches = (
        read_run(folder / RUN_FILE),
        read_result(folder),
        manifest.read_launches(folder),
    )
    events = read_logged_events(folder)
    state, error = _run_state(folder, result, launches)
    evaluations = evaluations_of(events)
    best = evaluations[-1].best if evaluations else None
    if result:
        steps = result.steps
        best = best if result.best_score is None else result.best_score
    else:  # while it runs the log is ahead of the last checkpoint, once it has a line; afterwards only that one counts
        logged = latest_step(events) if state == "running" else 0
        steps = max(logged, manifest.last_checkpoint_step(folder))
    recipe = run.recipe
    return RunSummary(
        folder=folder,
        state=state,
        begun=_begun_at(folder),
        recipe=recipe.name,
        family=recipe.family,
        task=recipe.task,
        profile=run.profile.name,
        data=recipe.data.index or "",
        steps=steps,
        total=result.steps if result else total_steps(run, launches),
        best=best,
        error=error,
        metric=metric_name(recipe.eval.metric, recipe.task),
        job=launches[-1].job if launches else "",
    )


def _with_job_states(summaries: Sequence[RunSummary]) -> list[RunSummary]:
    """Runs with the numbers and states of their SLURM jobs: one question for all that have not finished."""
    jobs = {summary.folder: read_slurm_job(summary.folder) for summary in summaries}
    unfinished = [jobs[summary.folder] for summary in summaries if summary.state != "finished"]
    states = query_job_states([job for job in unfinished if job is not None])
    return [_with_job_state(summary, jobs[summary.folder], states) for summary in summaries]


def _with_job_state(
    summary: RunSummary, job: SlurmJob | None, states: Mapping[str, SlurmJobState]
) -> RunSummary:
    job_state = states.get(job.number) if job else None
    if job is None or job_state is None:
        return replace(summary, job=job.number) if job else summary
    state = summary.state
    if job_state.is_queued and state != "running":
        state = "queued"
    elif job_state.is_running:  # its workers may not have begun, or lock on a disk that shows no locks here
        state = "running"
    error = "" if state in ("queued", "running") else summary.error
    return replace(summary, state=state, error=error, job=job.number, job_state=str(job_state))


def _run_state(folder: Path, result: RunResult | None, launches: Sequence[RunLaunch]) -> tuple[RunState, str]:
    """What a run is doing, and why it failed."""
    if is_run_active(folder):
        return "running", ""
    if result:
        return "finished", ""
    error = read_error(folder)
    if error and not error.stopped:
        return "failed", error.message
    if not launches and follow_pointer(folder, "last") is None and not (folder / LOG_FILE).is_file():
        return "planned", ""
    killed = launches and launches[-1].ended is None and not error
    return "stopped", message("runs.killed", "killed") if killed else ""


def _begun_at(folder: Path) -> float:
    launches = manifest.read_launches(folder)
    if launches:
        return manifest.parse_time(launches[-1].began)
    try:
        return min(path.stat().st_mtime for path in folder.iterdir())
    except (OSError, ValueError):
        return 0.0


def total_steps(run: Run, launches: Sequence[RunLaunch]) -> int | None:
    """Optimizer steps of a whole run, where settings and number of rows say so."""
    optim = run.recipe.optim
    if optim.steps:
        return optim.steps
    rows = launches[-1].data.rows if launches else None
    if not rows or run.recipe.data.kinds or not optim.epochs:
        return None
    return optim.count_steps(rows.get("train", 0))


# --------------------------------------------------------------------------------- all of it


def read_run_details(folder: Path) -> RunDetails:
    """All about one run; never fails."""
    (summary,) = summarise_runs([folder])
    run = read_run(folder / RUN_FILE) if summary.state != "broken" else None
    return RunDetails(
        summary,
        run,
        setting_changes(run) if run else None,
        read_evaluations(folder),
        list_checkpoints(folder),
        manifest.read_launches(folder),
        _error_detail(folder),
        [*manifest.manifest_problems(folder), *log_problems(folder)],
    )


def setting_changes(run: Run) -> list[SettingChange] | None:
    """Settings of a run that differ from the recipe and profile of its names, as they are today.

    None: there is no such recipe or profile here to compare with.
    """
    recipe = _usual_settings("recipes", run.recipe.name)
    profile = _usual_settings("profiles", run.profile.name)
    if recipe is None or profile is None:
        return None
    return [
        *_setting_changes(run, "recipe", recipe, run.recipe, ""),
        *_setting_changes(run, "profile", profile, run.profile, "profile."),
    ]


def _usual_settings(kind: Kind, name: str) -> Recipe | Profile | None:
    if name not in settings_files(kind):
        return None
    try:
        return load_recipe(name) if kind == "recipes" else load_profile(name)
    except KovqaError:
        return None


def _setting_changes(
    run: Run, origin_key: str, usual: Recipe | Profile, used: Recipe | Profile, prefix: str
) -> list[SettingChange]:
    before, after = (flatten_settings(settings.model_dump(mode="json")) for settings in (usual, used))
    return [
        SettingChange(
            prefix + key, before.get(key), after.get(key), setting_origin(run.origin, f"{origin_key}.{key}")
        )
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]


def flatten_settings(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings as one level: {"optim.lr": 1e-3}."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten_settings(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def list_checkpoints(folder: Path) -> list[CheckpointSummary]:
    """Step folders of a run, oldest first."""
    last, best = follow_pointer(folder, "last"), follow_pointer(folder, "best")
    return [
        CheckpointSummary(
            step.name,
            _folder_size(step),
            step == last,
            step == best,
            checkpoint_problem(step, checksums=False) is None,
        )
        for step in list_step_folders(folder)
    ]


def _folder_size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except OSError:  # no permission, or removed meanwhile
        return 0


def _error_detail(folder: Path) -> str:
    try:
        error = read_error(folder)
    except (KovqaError, OSError):
        return ""
    return error.detail if error and not error.stopped else ""
