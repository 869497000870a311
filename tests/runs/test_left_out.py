"""Rows left out of a run stand where people look: plan, lines of progress, `runs show`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.runs import left_out
from kovqa_core.runs.events import TrainStepEvent, event_fields, event_line, parse_event
from kovqa_core.runs.folder import LOG_FILE
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.run import Run, make_run

from kovqa_cli.output.training import training_progress
from tests.conftest import Kovqa, Small


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two logged steps of a run whose index left rows out for a fault and by its class list."""
    index = tmp_path / "index"
    index.mkdir()
    report = {
        "rows": {"train": 80, "val": 10},
        "images": ".",
        "left_out": {"picture missing": 2, "answer seen fewer than 5 times": 8},
    }
    (index / "index.json").write_text(json.dumps({"schema": 1, **report}), "utf-8")
    recipe = load_recipe("tiny-vlm").model_copy(deep=True)
    recipe = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"index": str(index)}),
            "optim": recipe.optim.model_copy(update={"global_batch": 16}),
        }
    )
    made = make_run(recipe, load_profile("cpu"), tmp_path / "run", [])
    (tmp_path / "run").mkdir()
    steps = [TrainStepEvent(step, 1.0, 1.0, 1e-3, 5.0, left_out) for step, left_out in ((1, None), (2, 8))]
    (tmp_path / "run" / LOG_FILE).write_text(
        "".join(json.dumps(event_fields(e)) + "\n" for e in steps), "utf-8"
    )
    return made


def test_all_that_was_left_out_of_a_run(run: Run) -> None:
    found = left_out.read_run_left_out(run.folder, run)
    assert found.json_fields() == {
        "training": 8,
        "of_rows": 32,
        "index": {"picture missing": 2, "answer seen fewer than 5 times": 8},
        "unreadable": 0,
        "first_unreadable": "",
        "validation": 0,
    }
    assert found.lines() == [
        "index: 2 of 100 rows (2.0%) are left out: picture missing 2",
        "index: not covered by its classes: answer seen fewer than 5 times 8",
        "training: 8 of 32 rows (25.0%) are left out: longer than model.max_text, or without an answer to learn "
        "(with model.choices: one of the choices)",
    ]
    assert left_out.index_warning(found.index) == "the index lacks rows: 2 of 100 rows (2.0%) are left out"


def test_an_index_that_is_gone_or_lacks_little_says_nothing(run: Run) -> None:
    report = left_out.read_index_report(run)
    assert report is not None
    (Path(run.recipe.data.index or "") / "index.json").unlink()
    assert left_out.read_run_left_out(run.folder, run).index is None
    assert left_out.index_lines(None) == []
    assert left_out.index_warning(None) is None


def test_a_step_says_how_many(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    event = parse_event(event_line(TrainStepEvent(2, 1.0, 1.0, 1e-3, 5.0, 8)))
    assert event is not None
    with training_progress() as show:
        show(event)
    assert "step 2: 8 rows were left out: longer than model.max_text" in capsys.readouterr().err


def test_the_plan_says_what_the_index_left_out(kovqa: Kovqa, small: Small, run: Run) -> None:
    """And refuses nothing: the index was allowed when it was written."""
    index = Path(run.recipe.data.index or "")
    for name in ("train.jsonl", "val.jsonl", "test.jsonl", "answers.txt"):
        (index / name).write_bytes((small.index / name).read_bytes())
    for name in ("train.offsets", "val.offsets", "test.offsets"):
        (index / name).write_bytes((small.index / name).read_bytes())
    words = ["train", "-r", "tiny", "-p", "cpu", "--data", index, "--tokenizer", small.tokenizer, "-n"]
    done = kovqa(*words)
    assert done.returncode == 0, done.stderr
    assert "warning: the index lacks rows: 2 of 100 rows (2.0%) are left out" in done.stderr
    assert "index: not covered by its classes: answer seen fewer than 5 times 8" in done.stderr
