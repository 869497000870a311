"""Run folders: their files, and the folder that a name stands for. Reads small files only."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from kovqa_core.errors import DataError, ModelError
from kovqa_core.files import read_json, write_json
from kovqa_core.messages import message, shell_quote
from kovqa_core.runs.step_folders import is_step_name, list_step_folders, missing_checkpoint_files

RESULT_FILE = "result.json"  # written when a run is finished
ERROR_FILE = "error.json"  # written when a worker failed
LOG_FILE = "log.jsonl"  # one line per logged step and per evaluation
LOGS_FOLDER = "logs"  # made when processes are started or queued
MANIFEST_FILE = "manifest.json"  # one entry per launch (`manifest.py`)
RUNS_FOLDER = Path("runs")
_MAX_NAMED_FILES = 3  # in one message


def follow_pointer(folder: Path, pointer: str) -> Path | None:
    """The step folder that `last` or `best` names, if it is there.

    Where `last` is lost or damaged, or its folder was removed because it is broken, the newest step folder that is
    whole counts.
    """
    file = folder / pointer
    name = file.read_bytes().decode("utf-8", "replace").strip() if file.is_file() else ""
    if is_step_name(name) and (folder / name).is_dir():
        return folder / name
    if pointer != "last":
        return None
    whole = (path for path in reversed(list_step_folders(folder)) if not missing_checkpoint_files(path))
    return next(whole, None)


def find_resume_checkpoint(folder: Path) -> Path | None:
    """The step folder that a run goes on from: `last`, or without it the newest that is whole; None: it begins.

    Raises:
        ModelError: that one lacks files, or there are step folders and none is whole. A run does not begin anew
            over its checkpoints, and goes back to an older one only if it is told to.
    """
    steps = list_step_folders(folder)
    step = follow_pointer(folder, "last") or (steps[-1] if steps else None)
    missing = missing_checkpoint_files(step) if step else []
    if step is None or not missing:
        return step
    earlier = [path for path in steps if path != step and not missing_checkpoint_files(path)]
    if earlier:
        hint = message(
            "runs.incomplete-checkpoint.earlier-hint",
            "put it back; or go on from {earlier}: rm -r {broken} && kovqa train --resume -o {folder}",
            earlier=earlier[-1].name,
            broken=shell_quote(step),
            folder=shell_quote(folder),
        )
    else:
        hint = message(
            "runs.incomplete-checkpoint.hint",
            "put it back, or train it again in a new folder: kovqa runs rerun {folder}",
            folder=shell_quote(folder),
        )
    raise ModelError(
        message(
            "runs.incomplete-checkpoint",
            "{step} cannot be resumed: it lacks {missing}",
            step=step,
            missing=", ".join(missing[:_MAX_NAMED_FILES]) + (", …" if missing[_MAX_NAMED_FILES:] else ""),
        ),
        hint,
    )


def was_launched(folder: Path) -> bool:
    """Was anything started or queued here? A dry run leaves `run.yaml` alone."""
    marks = (LOGS_FOLDER, MANIFEST_FILE, LOG_FILE, "last", RESULT_FILE)
    return any((folder / name).exists() for name in marks) or bool(list_step_folders(folder))


def is_run_active(folder: Path) -> bool:
    """Does a worker hold the folder's lock?

    A shared lock is tried, which several who look may hold, but none beside a worker's exclusive one. filelock
    has exclusive locks only, and one taken for a look could refuse a worker that starts at that moment.
    """
    import fcntl  # not on Windows, where nothing trains

    from kovqa_core.distributed.run_lock import LOCK_FILE  # which imports it, too

    try:
        with (folder / LOCK_FILE).open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # never locked, or a disk without locks
    return False


@dataclass(frozen=True)
class RunResult:
    """How a finished run ended: the contents of `result.json`.

    Attributes:
        task: "vqa" or "caption".
        recipe: name of the recipe.
        steps: optimizer steps done, by all launches together.
        best: name of the step folder with the best score.
        best_score, last_score: by the metric; None for a run without a validation split.
        seconds: of the last launch.
        examples_per_second: of the last launch, evaluations included.
        metric: name in the table of metrics; None in results of earlier versions: the task's default.
    """

    task: str
    recipe: str
    steps: int
    best: str | None
    best_score: float | None
    last_score: float | None
    seconds: float
    examples_per_second: float
    metric: str | None = None


def write_result(folder: Path, result: RunResult) -> None:
    """Mark a run as finished."""
    write_json(folder / RESULT_FILE, {"schema": 1, **asdict(result)})


def read_result(folder: Path) -> RunResult | None:
    """How a finished run ended; None while it is not finished. Unknown keys are ignored.

    Raises:
        DataError: the file is damaged, or lacks a key.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        return None
    values = read_json(path)
    required = {field.name for field in fields(RunResult) if field.default is MISSING}
    if not isinstance(values, dict) or not values.keys() >= required:
        raise DataError(
            message("runs.bad-result", "{file} does not hold the result of a run", file=path),
            message("runs.bad-result.hint", "remove it and run kovqa train --resume: it is written again"),
        )
    return RunResult(
        **{field.name: values[field.name] for field in fields(RunResult) if field.name in values}
    )


@dataclass(frozen=True)
class RunError:
    """Why a worker ended a run: the contents of `error.json`.

    Attributes:
        kind: name of the error's class in `ERROR_CLASSES`; "" for a fault of ours.
        message: what happened.
        detail: the error's hint; for a fault of ours its traceback.
        rank: of the process that failed first.
    """

    kind: str = ""
    message: str = ""
    detail: str = ""
    rank: int = -1

    @property
    def stopped(self) -> bool:
        """Was the run asked to stop? Then nothing has failed."""
        return self.kind == "Stopped"


def read_error(folder: Path) -> RunError | None:
    """The error that a run's latest launch left; None without one.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / ERROR_FILE
    values = read_json(path) if path.is_file() else {}
    if not isinstance(values, dict) or not values:
        return None
    return RunError(**{field.name: values[field.name] for field in fields(RunError) if field.name in values})


def is_huggingface_folder(folder: Path) -> bool:
    """Is it a Hugging Face folder, whose configuration names a model type? Ours do not."""
    file = folder / "config.json"
    return file.is_file() and "model_type" in read_json(file)


def find_model_folder(model: Path | None, task: str) -> Path:
    """The step folder that is meant.

    Args:
        model: a run folder (its best step), a step folder, a Hugging Face folder, or None: the newest
            finished run here that can do the task.
        task: "vqa" or "caption".

    Raises:
        ModelError: there is none.
    """
    if model is None:
        return _newest_model(task)
    if (model / "kovqa.json").is_file() or is_huggingface_folder(model):
        return model
    step = follow_pointer(model, "best") or follow_pointer(model, "last")
    if step is None:
        raise ModelError(
            message("runs.no-model", "no kovqa model in {folder}", folder=model),
            message("runs.no-model.hint", "name a run folder or one of its step folders"),
        )
    return step


def _newest_model(task: str) -> Path:
    results = [path for path in RUNS_FOLDER.glob(f"*/{RESULT_FILE}") if read_json(path).get("task") == task]
    if not results:
        raise ModelError(
            message(
                "runs.no-finished-run", "no finished {task} run in {folder}/", task=task, folder=RUNS_FOLDER
            ),
            message("runs.no-finished-run.hint", "name a model with --model, or train one first"),
        )
    newest = max(results, key=lambda path: path.stat().st_mtime)
    return find_model_folder(newest.parent, task)
