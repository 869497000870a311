"""Run folders: their files, and the folder that a name stands for. Reads small files only."""

from __future__ import annotations

import functools
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import FiniteFloat

from kovqa_core.download.hub_copies import find_hub_copy, hub_copy_missing, parse_hub_name
from kovqa_core.errors import DataError, KovqaError, ModelError
from kovqa_core.file_lock import is_locked
from kovqa_core.files import read_json, write_json
from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.messages.packed import pack_texts, unpack_message
from kovqa_core.runs.best_step import recomputed_best
from kovqa_core.runs.events import report_warning
from kovqa_core.runs.resume_point import newest_whole_checkpoint, pointer_problem
from kovqa_core.runs.step_folders import is_step_name, list_step_folders, read_pointer
from kovqa_core.settings.json_file import read_json_as

RESULT_FILE = "result.json"  # written when a run is finished
ERROR_FILE = "error.json"  # written when a worker failed
_ERROR_TEXTS = ("message", "detail")
LOG_FILE = "log.jsonl"  # one line per logged step and per evaluation
LOGS_FOLDER = "logs"  # made when processes are started or queued
MANIFEST_FILE = "manifest.json"  # one entry per launch (`manifest.py`)
RUNS_FOLDER = Path("runs")


def follow_pointer(folder: Path, pointer: str) -> Path | None:
    """The step folder that `last` or `best` names, if it is there.

    `last` is what a run would go on from: where it is lost or damaged, or its folder is not whole, the newest step
    folder that is whole counts.
    """
    name = read_pointer(folder, pointer) or ""
    named = folder / name if is_step_name(name) and (folder / name).is_dir() else None
    return newest_whole_checkpoint(folder) or named if pointer == "last" else named


def was_launched(folder: Path) -> bool:
    """Was anything started or queued here? A command that was killed before may have left `run.yaml` alone."""
    marks = (LOGS_FOLDER, MANIFEST_FILE, LOG_FILE, "last", RESULT_FILE)
    return any((folder / name).exists() for name in marks) or bool(list_step_folders(folder))


def is_run_active(folder: Path) -> bool:
    """Does a worker hold the folder's lock?

    A shared lock is tried, which several who look may hold, but none beside a worker's exclusive one: an exclusive one
    taken for a look could refuse a worker that starts at that moment.
    """
    from kovqa_core.distributed.run_lock import LOCK_FILE

    return is_locked(folder / LOCK_FILE)


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

    task: Literal["vqa", "caption"]
    recipe: str
    steps: int
    best: str | None
    best_score: float | None
    last_score: float | None
    seconds: FiniteFloat
    examples_per_second: FiniteFloat
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
    if not _is_there(path):
        return None
    hint = message("runs.bad-result.hint", "remove it and run kovqa train --resume: it is written again")
    return read_json_as(path, RunResult, hint)


def _is_there(path: Path) -> bool:
    """Is there anything under this name? A folder or a link to nothing is, and reading it says what is wrong."""
    return os.path.lexists(path)


@dataclass(frozen=True)
class RunError:
    """Why a worker ended a run: the contents of `error.json`.

    Attributes:
        kind: name of the error's class in `ERROR_CLASSES`; "" for a fault of ours.
        message: what happened.
        detail: the error's hint; for a fault of ours its traceback.
        rank: of the process that failed first.
        packed: `message` and `detail` by name, as `messages/packed.py` packs them; of earlier versions nothing.
    """

    kind: str = ""
    message: str = ""
    detail: str = ""
    rank: int = -1
    packed: dict[str, Any] = field(default_factory=dict)

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
    if not _is_there(path):
        return None
    error = read_json_as(path, RunError)
    message, detail = (unpack_message(getattr(error, name), error.packed.get(name)) for name in _ERROR_TEXTS)
    return replace(error, message=message, detail=detail)


def error_values(error: KovqaError) -> dict[str, object]:
    """An error of a class in `ERROR_CLASSES` as `error.json` holds it, without the rank."""
    texts = dict(zip(_ERROR_TEXTS, (error.message, error.hint), strict=True))
    packed = {name: packed for name in _ERROR_TEXTS if (packed := pack_texts(texts[name]))}
    return {"kind": type(error).__name__, **texts, "packed": packed}


def is_huggingface_folder(folder: Path) -> bool:
    """Is it a Hugging Face folder, whose configuration names a model type? Ours do not."""
    file = folder / "config.json"
    if not file.is_file():
        return False
    values = read_json(file)
    if not isinstance(values, dict):
        raise ModelError(
            message("runs.config-not-an-object", "{file} holds no JSON object", file=file),
            message("runs.config-not-an-object.hint", "fetch or copy the folder again"),
        )
    return "model_type" in values


def is_earlier_export(folder: Path) -> bool:
    """Was a BEiT-3 exported here before exports had a `kovqa.json`? Its `config.json` tells all that one would."""
    return all((folder / name).is_file() for name in ("tokenizer.model", "model.safetensors", "config.json"))


def find_model_folder(model: Path | None, task: str) -> Path:
    """The step folder that is meant.

    Args:
        model: a run folder (its best step), a step folder, a Hugging Face folder, OWNER/NAME[@REVISION] of the
            Hugging Face hub, of which a copy is here, or None: the newest finished run here that can do the task.
        task: "vqa" or "caption".

    Raises:
        ModelError: there is none.
        AssetError: a model of the hub is not on this machine, or not whole.
    """
    if model is None:
        return _newest_model(task)
    if not os.path.lexists(model):
        model = hub_model_folder(model) or model
    if os.path.lexists(model / "kovqa.json") or is_huggingface_folder(model) or is_earlier_export(model):
        return model
    step = follow_pointer(model, "best") or _without_best(model)
    if step is None and os.path.lexists(model / "run_onnx.py"):
        raise ModelError(
            message("runs.onnx-export", "{folder} is an export for onnxruntime", folder=model),
            message(
                "runs.onnx-export.hint", "name the model it was made of, or run what is in it: run_onnx.py"
            ),
        )
    if step is None and (model / "run.yaml").is_file():
        raise ModelError(
            message("runs.no-checkpoint-yet", "{folder} has no checkpoint yet", folder=model),
            message("runs.no-checkpoint-yet.hint", "train it: kovqa train --resume -o {folder}", folder=shell_quote(model)),
        )  # fmt: skip
    if step is None:
        from kovqa_core.runs.near_runs import with_near_runs

        problem = message("runs.no-model", "no kovqa model in {folder}", folder=model)
        raise ModelError(
            problem if os.path.lexists(model) else with_near_runs(problem, model, RUNS_FOLDER),
            message("runs.no-model.hint", "name a run folder or one of its step folders"),
        )
    return step


def hub_model_folder(model: Path) -> Path | None:
    """The folder of a model of the hub; None for what can only be meant as a path.

    Raises:
        AssetError: it is not here, or not whole.
    """
    name = parse_hub_name(str(model))
    if name is None:
        return None
    copy = find_hub_copy(name)
    if copy is None:
        if Path(model.parts[0]).is_dir():
            return None  # runs/r1: of a folder here
        raise hub_copy_missing(name)
    if copy.note:
        _report_once(copy.note)
    return copy.folder


@functools.cache
def _report_once(note: Message) -> None:
    """Of a process, which may look a model up several times."""
    report_warning(note)


def _without_best(folder: Path) -> Path | None:
    """The step folder to answer with where `best` is lost: the best by the training state, else the last; said."""
    best = recomputed_best(folder)
    step = best or follow_pointer(folder, "last")
    if step is not None and (problem := pointer_problem(folder, "best")):
        chosen = message("runs.best-by-state", "the best by the training state")
        if best is None:
            chosen = message("runs.newest-instead", "the newest whole checkpoint")
        report_warning(
            message(
                "runs.model-without-best",
                "{folder}: {problem}: taking {step}, {chosen}",
                folder=folder,
                problem=problem,
                step=step.name,
                chosen=chosen,
            )
        )
    return step


def _newest_model(task: str) -> Path:
    results = [path for path in RUNS_FOLDER.glob(f"*/{RESULT_FILE}") if _is_result_of(path.parent, task)]
    if not results:
        raise ModelError(
            message(
                "runs.no-finished-run", "no finished {task} run in {folder}/", task=task, folder=RUNS_FOLDER
            ),
            message("runs.no-finished-run.hint", "name a model with --model, or train one first"),
        )
    newest = max(results, key=lambda path: path.stat().st_mtime)
    return find_model_folder(newest.parent, task)


def _is_result_of(folder: Path, task: str) -> bool:
    """Is it a finished run of a task? One whose result cannot be read is said, and left out."""
    try:
        result = read_result(folder)
    except DataError as error:
        report_warning(message("runs.left-out-run", "left out: {problem}", problem=error.message))
        return False
    return result is not None and result.task == task
