"""What a plan says of steps, hours, room on the disk and energy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from kovqa_core.models.memory import StepMemory
from kovqa_core.paths import settings_files
from kovqa_core.plan import run_length
from kovqa_core.plan.run_length import RunLength, count_run_length, speed_table
from kovqa_core.runs.events import TrainStepEvent, event_line
from kovqa_core.settings.recipe import DataSettings
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.run import Run, make_run

from tests.conftest import SMALL, Small
from tests.plan.conftest import Plan

STEP = StepMemory(
    weights=4e9, parameters=1_000_000_000, learned=1_000_000_000, casts=0, activations=0, checkpointed=0, layer=0, logits=0,
    temporary=0,
)  # fmt: skip


def a_run(small: Small, folder: Path, recipe: str, profile: str, **optim: object) -> Run:
    loaded = load_recipe(recipe)
    changed = loaded.model_copy(
        update={
            "data": DataSettings(index=str(small.index)),
            "optim": loaded.optim.model_copy(update={"global_batch": 64, **optim}),
        }
    )
    return make_run(changed, load_profile(profile), folder, [])


def test_epochs_become_steps_and_steps_epochs(plan: Plan, tmp_path: Path) -> None:
    length = plan(tmp_path / "run").length
    assert (length.steps, length.epochs, length.seconds) == (12, 0.5, None)  # 196 rows are 24 batches of 8
    by_epochs = plan(tmp_path / "run", sets=[*SMALL, "optim.epochs=3"]).length
    assert (by_epochs.steps, by_epochs.epochs) == (72, 3)


def test_time_and_energy_of_a_known_machine(small: Small, tmp_path: Path) -> None:
    run = a_run(small, tmp_path / "run", "kobeit3", "h100x8", steps=9000, epochs=None)
    length = count_run_length(run, STEP)
    assert length.speed is not None
    assert (length.speed.how, length.speed.examples_per_second) == ("counted", 8 * 934)
    assert length.seconds == pytest.approx(9000 * 64 / (8 * 934))
    assert length.energy_kwh == pytest.approx(8 * 0.7 * length.seconds / 3600)
    half = count_run_length(run, STEP, done=4500)
    assert half.seconds == pytest.approx(length.seconds / 2)
    unknown = count_run_length(a_run(small, tmp_path / "run", "kobeit3", "a100x4"), STEP)
    assert (unknown.seconds, unknown.energy_kwh, unknown.watts) == (None, None, 400)
    assert count_run_length(a_run(small, tmp_path / "run", "kobeit3", "cpu"), None).speed is None


def test_a_run_that_goes_on_has_its_own_speed(small: Small, tmp_path: Path) -> None:
    run = a_run(small, tmp_path, "kobeit3", "h100x8", steps=100, epochs=None)
    lines = [event_line(TrainStepEvent(step, 1.0, 1.0, 1e-3, float(step))) for step in (10, 20, 30)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    length = count_run_length(run, STEP, done=30)
    assert length.speed is not None
    assert (length.speed.how, length.speed.examples_per_second) == ("own", 20)
    assert length.seconds == 70 * 64 / 20


def test_room_on_the_disk(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and two moments of 1e9 numbers; two that are kept, the best, and one being written."""
    monkeypatch.setattr(run_length.shutil, "disk_usage", lambda path: SimpleNamespace(free=40e9))
    run = a_run(small, tmp_path / "run", "kobeit3", "h100x8")
    length = count_run_length(run, STEP)
    assert (length.checkpoint_bytes, length.disk_bytes) == (12e9, 48e9)
    assert length.disk_warning is not None
    assert "48.0 GB, and 40.0 GB are free" in length.disk_warning
    assert "--set save.keep=1" in length.disk_warning
    (tmp_path / "run" / "step-000001").mkdir(parents=True)
    assert count_run_length(run, STEP).disk_warning is None
    adapter = replace(STEP, learned=10_000_000)
    assert count_run_length(run, adapter).checkpoint_bytes == 12 * 10_000_000
    averaged = a_run(small, tmp_path / "run", "kobeit3", "h100x8", ema_decay=0.9)
    assert count_run_length(averaged, STEP).checkpoint_bytes == 16e9
    assert RunLength().disk_warning is None


def test_each_figure_is_of_something_and_has_its_source() -> None:
    table = speed_table()
    assert {each.machine for each in table.speeds} == set(table.machines)
    recipes = {name for each in table.speeds for name in each.recipes}
    assert recipes <= set(settings_files("recipes"))
    documents = Path(__file__).parents[2]
    for each in table.speeds:
        document, _, heading = each.source.partition(", ")
        text = (documents / document).read_text("utf-8")
        assert f"## {heading.partition(':')[0]}\n" in text
        if each.how == "counted":
            assert f"{each.examples_per_second:,.0f}" in text
    gpus = {load_profile(name).gpu for name in settings_files("profiles")} - {"", "NVIDIA", "Apple"}
    assert gpus == {each.gpu for each in table.boards}


def test_the_first_steps_tell_the_time(small: Small, tmp_path: Path) -> None:
    from kovqa_core.train.meter import TrainMeter

    run = a_run(small, tmp_path / "run", "kobeit3", "h100x8", steps=1000, epochs=None)
    told: list[object] = []
    log = SimpleNamespace(emit_event=told.append)
    state = SimpleNamespace(run=run, steps=SimpleNamespace(total=1000), log=log)
    meter = TrainMeter(state, began=0.0, first_step=100)  # type: ignore[arg-type]
    for step in range(101, 201):
        meter._tell_time(step, 60.0 + 2 * step)
    (event,) = told
    assert json.loads(event_line(event)) == {  # type: ignore[arg-type]
        "kind": "time", "step": 150, "total": 1000, "seconds": 2.0, "left": 1700.0,
        "energy_kwh": pytest.approx(5.6 * 2000 / 3600),
    }  # fmt: skip
