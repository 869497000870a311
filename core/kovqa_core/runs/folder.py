"""Run folders: finding the one that is meant, and what became of it. Reads small files only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kovqa_core.errors import ModelError
from kovqa_core.files import read_json, read_text

RESULT_FILE = "result.json"  # written when a run is finished
ERROR_FILE = "error.json"  # written when a worker failed
LOG_FILE = "log.jsonl"  # one line per logged step and per evaluation
RUNS_FOLDER = Path("runs")


def follow_pointer(folder: Path, pointer: str) -> Path | None:
    """The step folder that `last` or `best` names, if it is there."""
    file = folder / pointer
    if not file.is_file():
        return None
    step = folder / read_text(file).strip()
    return step if step.is_dir() and step != folder else None


def is_run_active(folder: Path) -> bool:
    """Does a worker hold the folder's lock?"""
    import fcntl  # not on Windows, where nothing trains

    try:
        with (folder / ".lock").open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # never locked, or a disk that knows no locks
    return False


def read_result(folder: Path) -> dict[str, Any] | None:
    """What a finished run left; None while it is not finished."""
    path = folder / RESULT_FILE
    return read_json(path) if path.is_file() else None


def is_huggingface_folder(folder: Path) -> bool:
    """Is it a Hugging Face folder, whose configuration names its kind? Ours do not."""
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
        raise ModelError(f"no kovqa model in {model}", "give a run folder or one of its step folders")
    return step


def _newest_model(task: str) -> Path:
    found = [path for path in RUNS_FOLDER.glob(f"*/{RESULT_FILE}") if read_json(path).get("task") == task]
    if not found:
        raise ModelError(
            f"no finished {task} run in {RUNS_FOLDER}/", "name a model with --model, or train one first"
        )
    newest = max(found, key=lambda path: path.stat().st_mtime)
    return find_model_folder(newest.parent, task)
