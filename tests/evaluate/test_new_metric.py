"""A metric that chooses the best checkpoint is one function and one line of the table; nothing else knows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from kovqa_core.data.example import Example
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import SettingsError
from kovqa_core.evaluate.metrics import METRICS, Metric, format_metric, is_better, require_metric
from kovqa_core.runs.folder import follow_pointer, read_result
from kovqa_core.runs.summary import read_evaluations, summarise_run
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import make_run, write_run
from kovqa_core.train.loop import run_training

from tests.conftest import SMALL, Small

SCORES = [0.25, 0.75]  # of the first evaluation and of the second


def falling_metric() -> Metric:
    """A metric of which less is better, without a look at the answers."""
    scores = iter(SCORES)

    def next_score(examples: Sequence[Example], answers: Sequence[str]) -> float:
        assert len(examples) == len(answers) > 0
        # A row by itself is one that the run keeps, with its points, for `kovqa runs page`.
        return next(scores) if len(examples) > 1 else 0.0

    return Metric("vqa", next_score, ".1f", "errors", higher_is_better=False)


def test_a_new_metric_chooses_the_best_checkpoint(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "errors", falling_metric())
    sets = [*SMALL, "optim.steps=2", "eval.every_steps=1", "eval.metric=errors"]
    flags = {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}
    settings = resolve_settings("tiny", "cpu", sets, flags)
    folder = tmp_path / "run"
    folder.mkdir()
    run = make_run(settings.recipe, settings.profile, folder, [])
    write_run(run)
    run_training(run, RankInfo(0, 0, 1), torch.device("cpu"), lambda: False)

    best = follow_pointer(folder, "best")
    assert best is not None
    assert best.name == "step-000001", "the lower score, not the higher one"
    result = read_result(folder)
    assert result is not None
    assert (result.metric, result.best_score, result.last_score) == ("errors", 0.25, 0.75)
    assert [(event.metric, event.best) for event in read_evaluations(folder)] == [("errors", 0.25)] * 2
    summary = summarise_run(folder)
    assert (summary.metric, summary.best) == ("errors", 0.25)
    assert format_metric(result.metric, result.task, 0.25) == "errors 0.2"


def test_a_recipe_without_a_metric_means_the_tasks_own() -> None:
    assert require_metric(None, "vqa") is METRICS["accuracy"]
    assert require_metric(None, "caption") is METRICS["CIDEr"]
    assert format_metric(None, "vqa", 0.512) == "score 51.20%"
    assert format_metric(None, "caption", 0.9124) == "CIDEr 0.912"
    assert format_metric("of a later version", "vqa", 0.5) == "of a later version 0.5"


def test_only_a_better_score_is_better() -> None:
    rising, falling = METRICS["accuracy"], falling_metric()
    assert is_better(rising, 0.0, None) and is_better(falling, 9.0, None)
    assert is_better(rising, 0.6, 0.5) and not is_better(rising, 0.5, 0.5)
    assert is_better(falling, 0.4, 0.5) and not is_better(falling, 0.5, 0.5)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.task == "caption"])
def test_every_caption_metric_is_highest_for_a_reference(name: str) -> None:
    captions = ["빨간 공이 책상 위에 있다", "고양이 두 마리가 잔다"]
    examples = [Example(str(n), "a.png", "", captions=(caption,)) for n, caption in enumerate(captions)]
    right = METRICS[name].score(examples, captions)
    assert right > METRICS[name].score(examples, captions[::-1])


@pytest.mark.parametrize(
    ("name", "problem"), [("acuracy", "did you mean accuracy"), ("CIDEr", "is a metric for caption")]
)
def test_an_unknown_metric_or_one_of_another_task_is_refused(name: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        require_metric(name, "vqa")
