"""What somebody else's run.yaml would execute is shown, and not executed without --trust-run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from kovqa_core.errors import SettingsError
from kovqa_core.plan.claim import claim_planned_run
from kovqa_core.plan.rerun import plan_rerun
from kovqa_core.plan.training import PlannedTraining
from kovqa_core.runs.consent import TRUSTED_RUNS_FOLDER
from kovqa_core.settings.run import RUN_FILE, read_run

from kovqa_cli.output.training import print_plan
from tests.plan.conftest import MoveHome, Plan, leave_checkpoint

# Each with a harmless marker in place of what somebody else would like to run.
CODE = {
    "profile.setup": ["touch MARKER"],
    "profile.command_prefix": ["sh", "-c", "touch MARKER"],
    "profile.python": "./MARKER",
    "profile.env": {"LD_PRELOAD": "./MARKER.so", "NCCL_NET_PLUGIN": "MARKER"},
    "profile.slurm.options": ["--prolog=./MARKER"],
    "profile.slurm.srun_options": ["--task-prolog=./MARKER"],
    "profile.slurm.node_setup": ["touch MARKER"],
    "profile.deepspeed": "/MARKER.json",
    "profile.rendezvous": "marker:29500",
}
# For another launcher, strategy or family than that of the run below, whose plan would be refused.
_OTHER_LAUNCH = (
    "profile.slurm.node_setup",
    "profile.deepspeed",
    "profile.rendezvous",
)


def put_in(folder: Path, key: str, value: object) -> None:
    """Write a setting into a run.yaml, as whoever may write there could."""
    path = folder / RUN_FILE
    values = yaml.safe_load(path.read_text("utf-8"))
    *way, last = key.split(".")
    settings = values
    for name in way:
        settings = settings[name]
    settings[last] = value
    path.write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")


def rerun(folder: Path, output: Path, **options: bool) -> PlannedTraining:
    return plan_rerun(folder, output, **{"force": False, "dry_run": False, **options})


@pytest.mark.parametrize("key", CODE)
def test_a_changed_run_asks_before_it_runs_anything(
    resume: Plan, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    put_in(stopped, key, CODE[key])
    for plan in (
        lambda **options: resume(stopped, **options),
        lambda **o: rerun(stopped, tmp_path / "x", **o),
    ):
        with pytest.raises(SettingsError, match="not known here as yours") as refused:
            plan()
        assert key in refused.value.message
        assert "MARKER" in refused.value.message.upper()
        assert "--trust-run" in refused.value.hint
        assert "\n" not in refused.value.message
    assert not (tmp_path / "x").exists()
    if key in _OTHER_LAUNCH:
        return
    print_plan(resume(stopped, dry_run=True), quiet=False)
    said = capsys.readouterr().err
    assert "without --trust-run it does not start" in said
    values = CODE[key]
    for value in (
        values if isinstance(values, list) else values.values() if isinstance(values, dict) else [values]
    ):
        assert value in said


def test_a_run_without_code_settings_is_never_asked_about(
    resume: Plan, stopped: Path, tmp_path: Path, home: MoveHome
) -> None:
    assert not home("나").exists()  # nothing was kept of it
    home("다른 사람")
    assert not resume(stopped).foreign
    assert not rerun(stopped, tmp_path / "again").foreign


@pytest.fixture
def with_setup(plan: Plan, tmp_path: Path) -> Path:
    """A run whose user typed a setup line, stopped at step 8."""
    folder = tmp_path / "설정한 run"
    planned = plan(folder, sets=["optim.steps=12", "profile.setup=[touch MARKER]"], recipe="tiny")
    with claim_planned_run(planned, pytest.fail):
        leave_checkpoint(folder, 8)
    return folder


def test_ones_own_run_is_not_asked_about_wherever_it_is_moved(
    resume: Plan, with_setup: Path, tmp_path: Path, home: MoveHome
) -> None:
    with claim_planned_run(resume(with_setup), pytest.fail):
        pass
    moved = shutil.move(with_setup, tmp_path / "moved")
    with claim_planned_run(resume(moved), pytest.fail) as planned:
        assert planned.run.id == read_run(moved / RUN_FILE).id != ""
    with claim_planned_run(rerun(moved, tmp_path / "again"), pytest.fail):
        pass
    again = read_run(tmp_path / "again" / RUN_FILE)
    assert again.id not in ("", planned.run.id)
    leave_checkpoint(tmp_path / "again", 8)
    assert resume(tmp_path / "again").launch.argv[:2] == ["bash", "-c"]
    # A copy of the id does not carry over to other settings.
    put_in(moved, "profile.setup", ["touch MARKER", "touch OTHER"])
    with pytest.raises(SettingsError, match="OTHER"):
        resume(moved)
    assert len(list((home("나") / TRUSTED_RUNS_FOLDER).iterdir())) == 2


def test_another_home_asks_once_and_remembers(
    resume: Plan, with_setup: Path, tmp_path: Path, home: MoveHome
) -> None:
    home("Colab, 비어 있음")
    with pytest.raises(SettingsError, match="touch MARKER"):
        resume(with_setup)
    with claim_planned_run(resume(with_setup, trust_run=True), pytest.fail):
        pass
    assert not resume(with_setup).foreign
    home("나")
    assert not resume(with_setup).foreign  # whose run it is, is not asked in turn
    home("셋째")
    with claim_planned_run(rerun(with_setup, tmp_path / "again", trust_run=True), pytest.fail):
        pass
    assert not rerun(with_setup, tmp_path / "once more").foreign
    assert not resume(tmp_path / "again").foreign


def test_a_run_of_an_earlier_version_asks_once(
    resume: Plan, with_setup: Path, tmp_path: Path, home: MoveHome
) -> None:
    text = (with_setup / RUN_FILE).read_text("utf-8")
    (with_setup / RUN_FILE).write_text(
        "".join(x for x in text.splitlines(True) if not x.startswith("id:")), "utf-8"
    )
    with pytest.raises(SettingsError, match="touch MARKER"):
        rerun(with_setup, tmp_path / "again")
    with claim_planned_run(rerun(with_setup, tmp_path / "again", trust_run=True), pytest.fail):
        pass
    assert not rerun(with_setup, tmp_path / "once more").foreign


def test_what_was_typed_is_the_users(resume: Plan, stopped: Path, tmp_path: Path, home: MoveHome) -> None:
    put_in(stopped, "profile.setup", ["touch MARKER"])
    put_in(stopped, "profile.env", {"A": "1", "B": "2"})
    assert not resume(stopped, profile="cpu").foreign
    assert not resume(stopped, sets=["profile.setup=[]", "profile.env={}"]).foreign
    with pytest.raises(SettingsError, match=r"would run: profile\.env\.B '2'\n"):
        resume(stopped, sets=["profile.setup=[ls]", "profile.env.A=three"])
    own = tmp_path / "own.yaml"
    own.write_text("setup: [touch OWN]\n", "utf-8")
    planned = resume(stopped, profile=str(own))
    assert planned.run.profile.setup == ["touch OWN"]
    with claim_planned_run(planned, pytest.fail):
        pass
    assert not resume(stopped).foreign


def test_a_home_that_cannot_be_written_is_said_and_nothing_else(
    plan: Plan, resume: Plan, tmp_path: Path, home: MoveHome, capsys: pytest.CaptureFixture[str]
) -> None:
    home("나").parent.mkdir(exist_ok=True)
    home("나").write_text("a file in the place of the folder")
    folder = tmp_path / "run"
    with claim_planned_run(plan(folder, sets=["optim.steps=12", "profile.env.A=one"]), pytest.fail):
        leave_checkpoint(folder, 8)
    assert "will need --trust-run" in capsys.readouterr().err
    with pytest.raises(SettingsError, match=r"profile\.env\.A"):
        resume(folder)


def test_the_launch_of_a_trusted_run_executes_its_lines_and_no_other(
    resume: Plan, stopped: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    put_in(stopped, "profile.setup", [f"touch '{marker}'", "exit 3"])
    with pytest.raises(SettingsError):
        resume(stopped)
    assert not marker.exists()
    planned = resume(stopped, trust_run=True)
    assert subprocess.run(planned.launch.argv, check=False).returncode == 3
    assert marker.exists()
