"""A run that was stopped at step 8 of 12, without having been trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.plan.claim import claim_planned_run
from kovqa_core.plan.training import PlannedTraining, plan_training
from kovqa_core.runs.manifest import index_facts

from tests.conftest import SMALL, Small

Plan = Callable[..., PlannedTraining]
MoveHome = Callable[[str], Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MoveHome:
    """Moves into the home folder of a user."""

    def move(name: str) -> Path:
        folder = tmp_path / "집" / name
        monkeypatch.setenv("KOVQA_HOME", str(folder))
        return folder

    move("나")
    return move


@pytest.fixture
def plan(small: Small) -> Plan:
    """Plans a training as `kovqa train -o FOLDER` does, of the small data unless flags are given."""

    def planned(folder: Path | None, **options: object) -> PlannedTraining:
        defaults: dict[str, object] = {
            "recipe": "tiny", "profile": "cpu", "sets": [*SMALL, "optim.steps=12"], "resume": False,
            "flags": {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}, "dry_run": False,
        }  # fmt: skip
        return plan_training(folder=folder, **{**defaults, **options})  # type: ignore[arg-type]

    return planned


@pytest.fixture
def resume(plan: Plan) -> Plan:
    """Plans as `kovqa train --resume -o FOLDER` does, with what is given besides."""

    def planned(folder: Path | None, **options: object) -> PlannedTraining:
        return plan(
            folder, **{"recipe": None, "profile": None, "sets": [], "flags": {}, "resume": True, **options}
        )

    return planned


@pytest.fixture
def stopped(plan: Plan, small: Small, tmp_path: Path) -> Path:
    """Its folder."""
    folder = tmp_path / "내 run"
    with claim_planned_run(plan(folder), pytest.fail):
        pass
    leave_checkpoint(folder, 8)
    fingerprint = index_facts(str(small.index)).fingerprint
    launch = {"began": "2026-01-01T00:00:00+0900", "data": {"fingerprint": fingerprint}}
    (folder / "manifest.json").write_text(json.dumps({"schema": 1, "launches": [launch]}))
    return folder


def leave_checkpoint(folder: Path, step: int) -> None:
    """As much of a checkpoint as a plan looks at."""
    path = folder / f"step-{step:06d}"
    (path / "trainer").mkdir(parents=True)
    for name in ("kovqa.json", "model.safetensors", "trainer/state.json", "trainer/optimizer.safetensors"):
        (path / name).touch()
    (path / "trainer/state.json").write_text(json.dumps({"step": step}))
    (folder / "last").write_text(f"{path.name}\n")
