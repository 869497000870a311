"""kovqa runs rerun: what is not as it was in the run, and where a rerun may be planned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.plan.claim import claim_planned_run
from kovqa_core.plan.rerun import plan_rerun
from kovqa_core.plan.training import PlannedTraining

from kovqa_cli.output.training import print_plan
from tests.plan.conftest import Plan


def rerun(earlier: Path, folder: Path, *, dry_run: bool = False) -> PlannedTraining:
    return plan_rerun(earlier, folder, force=False, dry_run=dry_run)


def test_other_machine_settings_and_changes_are_said(
    resume: Plan, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((stopped / "manifest.json").read_text())
    first = {**manifest["launches"][0], "processes": 1, "profile": "cpu", "micro_batch": 8, "accumulate": 1}
    again = {**first, "from_step": 8, "micro_batch": 4, "accumulate": 2}
    (stopped / "manifest.json").write_text(json.dumps({"schema": 1, "launches": [first]}))
    assert not rerun(stopped, tmp_path / "same").warnings
    (stopped / "manifest.json").write_text(json.dumps({"schema": 1, "launches": [first, again]}))
    with claim_planned_run(resume(stopped, micro_batch="4", changes=["optim.lr=1e-4"]), pytest.fail):
        pass
    print_plan(rerun(stopped, tmp_path / "other"), quiet=False)
    said = capsys.readouterr().err
    assert "(from step 1: 1 × 8 × 1 on cpu, from step 9: 1 × 4 × 2 on cpu); this one has 1 × 4 × 2" in said
    assert "from step 9 on: optim.lr 0.0001 (0.001 before)" in said


def test_a_folder_that_holds_a_run_is_refused(stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    rerun(stopped, folder, dry_run=True)
    with claim_planned_run(rerun(stopped, folder), pytest.fail):
        (folder / "logs").mkdir()
    with pytest.raises(SettingsError, match="already holds a run"):
        rerun(stopped, folder)


def test_a_resumed_run_still_knows_its_micro_batch(resume: Plan, stopped: Path) -> None:
    for micro_batch in ("4", None, None):
        with claim_planned_run(resume(stopped, micro_batch=micro_batch), pytest.fail) as planned:
            assert planned.run.micro_batch == 4
            assert planned.run.origin["profile.micro_batch.tiny"] == "--micro-batch 4"
