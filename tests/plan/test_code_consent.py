"""That code of a base model may run is said to one command; its workers hear of it, and no file keeps it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from kovqa_core.errors import SettingsError
from kovqa_core.launch.plan import plan_launch
from kovqa_core.launch.start import launch_environment
from kovqa_core.plan.claim import claim_planned_run
from kovqa_core.plan.rerun import plan_rerun
from kovqa_core.settings.code_consent import TRUST_VARIABLE, code_consent_of
from kovqa_core.settings.run import RUN_FILE, read_run

from tests.conftest import VLM, Small
from tests.plan.conftest import Plan, leave_checkpoint

FLAG = {"model.trust_remote_code": True}


@pytest.fixture
def plan_vlm(plan: Plan, small: Small, tiny_vlm: Callable[[str], Path]) -> Plan:
    """Plans a training of a vision language model."""
    base = tiny_vlm("llava")

    def planned(folder: Path | None, **options: object) -> object:
        flags = {"data.index": str(small.index), **options.pop("flags", {})}  # type: ignore[dict-item]
        sets = [*VLM, f"model.base={base}", *options.pop("sets", [])]  # type: ignore[misc]
        return plan(folder, recipe="tiny-vlm", flags=flags, sets=sets, **options)

    return planned


@pytest.fixture
def allowed(plan_vlm: Plan, tmp_path: Path) -> Path:
    """A run that was allowed to run code, stopped at step 2."""
    folder = tmp_path / "run"
    planned = plan_vlm(folder, flags=FLAG)
    assert planned.launch.env[TRUST_VARIABLE] == "1"
    with claim_planned_run(planned, pytest.fail):
        leave_checkpoint(folder, 2)
    return folder


def test_no_file_of_a_run_keeps_it(allowed: Path, resume: Plan, tmp_path: Path) -> None:
    for file in allowed.rglob("*"):
        assert not file.is_file() or "trust_remote_code: true" not in file.read_text("utf-8")
    assert "trust_remote_code" not in read_run(allowed / RUN_FILE).recipe.model
    for planned in (resume(allowed), plan_rerun(allowed, tmp_path / "a", force=False, dry_run=False)):
        assert TRUST_VARIABLE not in planned.launch.env
    again = plan_rerun(allowed, tmp_path / "b", force=False, dry_run=False, trust_code=True)
    for planned in (
        resume(allowed, flags=FLAG),
        resume(allowed, sets=["model.trust_remote_code=true"]),
        again,
    ):
        assert planned.launch.env[TRUST_VARIABLE] == "1"
        assert "trust_remote_code" not in planned.run.recipe.model


def test_a_new_folder_keeps_what_the_command_was_told(
    plan_vlm: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody named the folder it is chosen late, and the launch is planned again."""
    monkeypatch.chdir(tmp_path)
    taken = plan_vlm(None, flags=FLAG)
    taken.run.folder.mkdir(parents=True)
    with claim_planned_run(taken, pytest.fail) as claimed:
        assert claimed.run.folder != taken.run.folder
        assert claimed.launch.env[TRUST_VARIABLE] == "1"


def test_what_an_earlier_version_kept_is_named_and_not_followed(
    allowed: Path, resume: Plan, tmp_path: Path
) -> None:
    """Nor what somebody else wrote there; and it asks nothing of runs whose base needs no code."""
    values = yaml.safe_load((allowed / RUN_FILE).read_text("utf-8"))
    values["recipe"]["model"]["trust_remote_code"] = True
    (allowed / RUN_FILE).write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")
    rerun = plan_rerun(allowed, tmp_path / "a", force=False, dry_run=False)
    for planned in (resume(allowed), resume(allowed, recipe="tiny-vlm"), rerun):
        assert TRUST_VARIABLE not in planned.launch.env
        assert "trust_remote_code" not in planned.run.recipe.model
        assert any(
            f"{allowed / RUN_FILE}: model.trust_remote_code is not followed" in each
            for each in planned.warnings
        )
    planned = resume(allowed, flags=FLAG)
    assert planned.launch.env[TRUST_VARIABLE] == "1"
    assert not any("trust_remote_code" in each for each in planned.warnings)


def test_no_profile_and_no_shell_decides_it(
    plan_vlm: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of a profile, which is a file, or one that lingers in a shell; the flag reaches SLURM's jobs, too."""
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    planned = plan_vlm(tmp_path / "run", sets=[f"profile.env={{{TRUST_VARIABLE}: '1'}}"])
    assert not code_consent_of(launch_environment(planned.launch))
    for launcher in ("sbatch", "srun", "torchrun"):
        profile = planned.run.profile.model_copy(update={"launcher": launcher})
        job = planned.run.model_copy(update={"profile": profile})
        said = [plan_launch(job, "python3", 4, trust_code=trust) for trust in (False, True)]
        texts = [f"{launch.shell_command()}\n{launch.script}" for launch in said]
        assert [f"{TRUST_VARIABLE}=1" in text for text in texts] == [False, True]


def test_a_family_without_code_does_not_take_it(stopped: Path, resume: Plan, tmp_path: Path) -> None:
    for again in (
        lambda: resume(stopped, flags=FLAG),
        lambda: plan_rerun(stopped, tmp_path / "a", force=False, dry_run=False, trust_code=True),
    ):
        with pytest.raises(SettingsError, match="trust_remote_code"):
            again()
