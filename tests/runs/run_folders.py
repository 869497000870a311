"""Run folders that tests make: a finished run's small files, with a log and samples as they are wanted."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from kovqa_core.index.reader import open_training_index
from kovqa_core.runs.folder import LOG_FILE
from kovqa_core.runs.validation_samples import (
    SAMPLES_FILE,
    EvaluationSamples,
    append_samples,
    choose_sample_rows,
    make_sample,
)
from kovqa_core.settings.run import RUN_FILE, read_run


def copy_run(trained: Path, folder: Path, rows: Iterable[Mapping[str, object]] | None = None) -> Path:
    """A run's small files under another name, with other lines in its log."""
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("step-*", "tensorboard", "logs"))
    if rows is not None:
        write_log(folder, rows)
    return folder


def write_log(folder: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """The lines of a log."""
    (folder / LOG_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def train_row(step: int, loss: float = 1.0, speed: float = 80.0) -> dict[str, object]:
    """A line about training."""
    return {
        "kind": "train",
        "step": step,
        "loss": loss,
        "grad_norm": None,
        "lr": 1e-3 / step,
        "examples_per_second": speed,
    }


def eval_row(step: int, score: float, best: float = 1.0, **others: object) -> dict[str, object]:
    """A line about an evaluation."""
    return {
        "kind": "eval",
        "step": step,
        "task": "vqa",
        "score": score,
        "best": best,
        "rows": 9,
        "seconds": 1.0,
        **others,
    }


def falling_log(steps: int = 300, evaluated: int = 100) -> list[dict[str, object]]:
    """A log of a run that learns."""
    rows = []
    for step in range(1, steps + 1):
        rows.append(train_row(step, 3 * math.exp(-step / 60) + 0.1 * (step % 7)))
        if step % evaluated == 0:
            rows.append(eval_row(step, 0.9 - 1 / step))
    return rows


def write_samples(folder: Path, said: Mapping[int, str]) -> None:
    """The samples of a run that gave one answer to every question of an evaluation."""
    (folder / SAMPLES_FILE).unlink(missing_ok=True)
    split = open_training_index(read_run(folder / RUN_FILE).recipe.data).split("val")
    for step, answer in said.items():
        examples = [split[number] for number in choose_sample_rows(len(split))]
        samples = [make_sample(each, answer, each.answers.get(answer, 0.0)) for each in examples]
        append_samples(folder, EvaluationSamples(step, samples))
