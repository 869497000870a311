"""kovqa train --resume: the machine may be another, the experiment stays the run's own, or is changed by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, ModelError, SettingsError
from kovqa_core.index.build import build_index
from kovqa_core.paths import settings_files
from kovqa_core.plan.claim import claim_planned_run
from kovqa_core.runs.checksums import note_files
from kovqa_core.runs.folder import RESULT_FILE
from kovqa_core.runs.manifest import require_same_data
from kovqa_core.runs.resume_point import find_resume_point
from kovqa_core.runs.step_folders import list_step_folders, missing_checkpoint_files
from kovqa_core.settings.recipe import OptimSettings
from kovqa_core.settings.run import RUN_FILE, RecipeChange, Run, optim_at_step, read_run

from kovqa_cli.output.training import print_plan
from tests.conftest import SMALL, Small
from tests.plan.conftest import Plan, leave_checkpoint


def refusal(resume: Plan, folder: Path, **options: object) -> str:
    """What `--resume` says to other settings."""
    with pytest.raises(SettingsError) as caught:
        resume(folder, **options)
    return str(caught.value)


# --------------------------------------------------------------------------------- the machine


def test_settings_of_the_machine_apply(
    resume: Plan, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_run(stopped / RUN_FILE)
    assert resume(stopped, sets=["profile.precision=bf16"]).run.profile.precision == "bf16"
    assert resume(stopped, micro_batch="2").run.micro_batch == 2
    (tmp_path / "mine.yaml").write_text("threads: 3\nprecision: fp32\nlauncher: torchrun\n")
    other = resume(stopped, profile=str(tmp_path / "mine.yaml"), sets=["profile.strategy=zero1"])
    assert (other.run.profile.name, other.run.profile.threads) == ("mine", 3)
    assert other.run.profile.strategy == "zero1"
    assert other.run.origin["profile.threads"].startswith(str(tmp_path / "mine.yaml"))
    monkeypatch.setenv("KOVQA_PROFILE__PRECISION", "bf16")
    planned = resume(stopped)
    assert planned.run.profile.precision == "bf16"
    assert planned.origin["profile.precision"] == "KOVQA_PROFILE__PRECISION=bf16"
    assert planned.run.profile.threads == before.profile.threads == 1  # typed then, and kept
    assert planned.run.recipe == before.recipe
    assert planned.resumed_step == "step-000008"


# ------------------------------------------------------------------------------ the experiment


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sets": ["optim.lr=7e-3"]}, "optim.lr is 0.001 there, and 0.007 by --set optim.lr=7e-3"),
        ({"sets": ["seed=1", "log_every=5"]}, "seed is 42 there, and 1 by --set seed=1"),
        ({"sets": ["model.max_text=20"]}, "model.max_text is 24 there, and 20 by --set model.max_text=20"),
        ({"recipe": "kobeit3"}, "recipe is tiny there, and kobeit3 by -r kobeit3"),
        (
            {"flags": {"model.random_init": True}},
            "model.random_init is null there, and true by --random-init",
        ),
    ],
)
def test_another_experiment_is_refused_by_name(
    resume: Plan, stopped: Path, options: dict[str, object], words: str
) -> None:
    said = refusal(resume, stopped, **options)
    assert f"{stopped} was started with other settings: " in said
    assert words in said
    assert "randaug" not in said  # nothing of the default recipe
    assert ("another -o" in said) != ("--change" in said)


def test_variables_and_files_that_say_otherwise_are_named(
    resume: Plan, stopped: Path, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_name = tmp_path / "tiny.yaml"
    shutil.copy(settings_files("recipes")["tiny"], same_name)
    assert resume(stopped, recipe=str(same_name)).run.recipe.optim.steps == 12  # was typed, not in the file
    same_name.write_text(same_name.read_text("utf-8").replace("log_every: 100", "log_every: 7"), "utf-8")
    assert resume(stopped, recipe=str(same_name)).run.recipe.log_every == 1  # typed, too
    same_name.write_text(same_name.read_text("utf-8").replace("seed: 42", "seed: 7"), "utf-8")
    assert f"seed is 42 there, and 7 by {same_name}:" in refusal(resume, stopped, recipe=str(same_name))
    for name, value, key in (
        ("KOVQA_OPTIM__LR", "7e-3", "optim.lr"),
        ("KOVQA_RECIPE", "kobeit3", "recipe"),
        ("KOVQA_TOKENIZER", str(small.root / "text.txt"), "model.tokenizer"),
    ):
        typed = {
            "KOVQA_RECIPE": {"recipe": value},
            "KOVQA_TOKENIZER": {"flags": {"model.tokenizer": value}},
        }
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            said = refusal(resume, stopped, **typed.get(name, {}))
        assert f"{key} is " in said
        assert f" by {name}={value}" in said


def test_the_same_command_again_is_not_refused(
    plan: Plan, stopped: Path, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... from another folder, by another way to the same files, and with less typed than then."""
    monkeypatch.chdir(small.index.parent)
    shutil.copy(small.tokenizer, tmp_path / "copy.model")
    flags = {"data.index": small.index.name, "model.tokenizer": str(tmp_path / "copy.model")}
    for sets in ([*SMALL, "optim.steps=12"], ["optim.steps=12"], []):
        assert plan(stopped, sets=sets, flags=flags, resume=True).run.recipe.optim.steps == 12


# ------------------------------------------------------------------------------------ the data


def write_other_index(small: Small, folder: Path) -> Path:
    rows = [json.loads(line) for line in (small.index / "train.jsonl").read_text("utf-8").splitlines()]
    table = folder.with_suffix(".jsonl")
    keys = ("id", "image", "question")
    other = [
        {**{key: row[key] for key in keys}, "answer": "다른 " + next(iter(row["answers"]))} for row in rows
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in other), "utf-8")
    build_index("table", table, small.root / "images", folder)
    return folder


def test_an_index_written_anew_is_refused(resume: Plan, stopped: Path, small: Small, tmp_path: Path) -> None:
    """Where the run looks for it, by a flag, and to a worker that a queue starts again."""
    assert resume(stopped).run
    other = write_other_index(small, tmp_path / "other")
    said = refusal(resume, stopped, flags={"data.index": str(other)})
    assert f"data.index is {small.index} there" in said.replace("'", "")
    assert f" by --data {other}" in said
    text = (stopped / RUN_FILE).read_text("utf-8")
    (stopped / RUN_FILE).write_text(text.replace(f"index: {small.index}", f"index: {other}"), "utf-8")
    for check in (lambda: resume(stopped), lambda: require_same_data(read_run(stopped / RUN_FILE))):
        with pytest.raises(DataError, match="holds other data than 내 run has learned from") as caught:
            check()
        assert "another -o" in caught.value.hint
    # The old data at another place is the run's own; so is any before something was learned.
    moved = shutil.copytree(small.index, tmp_path / "moved")
    flags = {"data.index": str(moved), "data.images": str(small.root / "images")}
    (stopped / RUN_FILE).write_text(text.replace(f"index: {small.index}", "index: gone"), "utf-8")
    assert resume(stopped, flags=flags).run.recipe.data.index == str(moved)
    (stopped / "last").unlink()
    shutil.rmtree(stopped / "step-000008")
    (stopped / RUN_FILE).write_text(text.replace(f"index: {small.index}", f"index: {other}"), "utf-8")
    assert resume(stopped).run


# ------------------------------------------------------------------------------------- changes


def test_a_change_is_written_with_its_step(resume: Plan, stopped: Path) -> None:
    changes = ["optim.lr=1e-4", "optim.clip=1"]  # by its old name
    again = lambda: resume(stopped, changes=changes)  # noqa: E731
    with claim_planned_run(again(), pytest.fail) as planned:
        assert [(c.step, c.key, c.before, c.value) for c in planned.changes] == [
            (8, "optim.lr", 0.001, 0.0001),
            (8, "optim.max_grad_norm", 5.0, 1),
        ]
    run = read_run(stopped / RUN_FILE)
    assert (run.recipe.optim.lr, run.recipe.optim.max_grad_norm) == (1e-4, 1)
    assert run.origin["recipe.optim.lr"] == "--change optim.lr=1e-4"
    assert (optim_at_step(run, 7).lr, optim_at_step(run, 8).lr) == (1e-3, 1e-4)
    assert optim_at_step(run, 7).max_grad_norm == 5
    # The same command again, as after a kill, changes nothing more; what is typed besides is what it was.
    assert not again().changes
    assert again().run.changes == run.changes
    assert not resume(stopped, changes=changes, sets=["optim.lr=1e-3"]).changes
    said = refusal(resume, stopped, sets=["optim.lr=1e-3"])
    assert "optim.lr is 0.0001 since step 8, and 0.001 by --set optim.lr=1e-3" in said


def test_a_finished_run_gets_more_steps(resume: Plan, stopped: Path) -> None:
    shutil.rmtree(stopped / "step-000008")
    leave_checkpoint(stopped, 12)
    result = {
        "task": "vqa",
        "recipe": "tiny",
        "steps": 12,
        "best": None,
        "best_score": None,
        "last_score": None,
    }
    (stopped / RESULT_FILE).write_text(json.dumps({**result, "seconds": 1, "examples_per_second": 1}))
    assert resume(stopped).result is not None
    assert "has done 12 steps already" in refusal(resume, stopped, changes=["optim.lr=1e-5"])
    assert "would be over after 11" in refusal(resume, stopped, changes=["optim.steps=11"])
    planned = resume(stopped, changes=["optim.steps=20"])
    assert planned.result is None
    assert (stopped / RESULT_FILE).is_file()  # a plan writes nothing
    with claim_planned_run(planned, pytest.fail):
        assert not (stopped / RESULT_FILE).exists()
    assert read_run(stopped / RUN_FILE).recipe.optim.steps == 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("seed=3", "--change seed: only a new run can have another one"),
        ("optim.global_batch=4", "optim.global_batch: only a new run"),
        ("optim={lr: 1}", "--change optim: only a new run"),
        (
            "profile.threads=2",
            "may be others at every --resume, without --change\nuse --set profile.threads=2",
        ),
        ("profile.env={A: b}", "use --set 'profile.env={A: b}' instead"),
        ("lr=1e-4", "--change lr=1e-4: unknown key 'lr'; did you mean optim.lr?"),
        ("optim.stepz=20", "unknown key 'stepz'; did you mean steps"),
        ("every_steps=2", "did you mean eval.every_steps or save.every_steps?"),
        ("model.image_size=64", "--change model.image_size: only a new run"),
        (
            "optim.min_lr=1",
            "--change optim.min_lr=1: optim.min_lr, with which a run ends, is 1, above optim.lr, 0.001",
        ),
        ("optim.lr=1e-7", "--change optim.lr=1e-7: optim.min_lr, with which a run ends, is 1e-06, above"),
        ("optim.epochs=2", "this run's length is optim.steps"),
        ("optim.lr=-1", "optim.lr"),
        ("optim.lr", "expected key=value"),
    ],
)
def test_what_cannot_change(resume: Plan, stopped: Path, change: str, words: str) -> None:
    text = (stopped / RUN_FILE).read_text("utf-8")
    assert words in refusal(resume, stopped, changes=[change])
    assert (stopped / RUN_FILE).read_text("utf-8") == text


@pytest.mark.parametrize(
    ("typed", "change", "words"),
    [
        (
            "optim.steps=40",
            "optim.steps=30",
            "optim.steps is given twice: 30 by --change optim.steps=30, 40 by --set",
        ),
        ("optim.lr=1e-5", "optim.lr=1e-4", "optim.lr is given twice: 0.0001 by --change"),
        ("optim.clip=2", "optim.max_grad_norm=1", "optim.max_grad_norm is given twice: 1.0 by --change"),
    ],
)
def test_a_key_is_not_set_and_changed(
    resume: Plan, stopped: Path, typed: str, change: str, words: str
) -> None:
    assert words in refusal(resume, stopped, sets=[typed], changes=[change])
    assert resume(stopped, sets=[typed], changes=[typed])  # both say the same


def test_settings_of_any_step_are_known_after_several_changes(stopped: Path) -> None:
    run = read_run(stopped / RUN_FILE)
    changes = [(4, "optim.lr", 0.001, 0.1), (6, "optim.lr", 0.1, 0.2), (6, "optim.steps", 8, 12)]
    made = [RecipeChange(step=s, key=k, before=b, value=v) for s, k, b, v in changes]
    optim = run.recipe.optim.model_copy(update={"lr": 0.2})
    run = run.model_copy(update={"recipe": run.recipe.model_copy(update={"optim": optim}), "changes": made})

    def at(step: int) -> tuple[object, ...]:
        settings: OptimSettings = optim_at_step(run, step)
        return settings.lr, settings.steps

    assert [at(step) for step in (0, 3, 4, 5, 6, 99)] == [
        (0.001, 8), (0.001, 8), (0.1, 8), (0.1, 8), (0.2, 12), (0.2, 12),
    ]  # fmt: skip


def test_a_change_counts_from_an_earlier_checkpoint_once_later_ones_are_removed(
    resume: Plan, stopped: Path
) -> None:
    leave_checkpoint(stopped, 4)
    (stopped / "last").write_text("step-000008\n")
    with claim_planned_run(resume(stopped, changes=["optim.lr=1e-4"]), pytest.fail):
        pass
    shutil.rmtree(stopped / "step-000008")
    planned = resume(stopped, changes=["optim.lr=1e-4"])
    assert planned.resumed_step == "step-000004"
    assert [change.step for change in planned.run.changes] == [4]


def test_a_resume_without_a_checkpoint_says_that_it_begins_anew(
    resume: Plan, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_plan(resume(stopped), quiet=False)
    assert "going on from step-000008" in capsys.readouterr().err
    (stopped / "last").unlink()
    shutil.rmtree(stopped / "step-000008")
    print_plan(resume(stopped), quiet=False)
    assert "beginning anew at step 0: there is no checkpoint yet" in " ".join(capsys.readouterr().err.split())


LOST = {
    None: "there is no readable file `last`",
    "": "`last` is empty",
    "step-000099\n": "`last` names step-000099, which is gone",
    "\xff\0 garbage": r"`last` names no step folder ('\ufffd\x00 garbage')",
    "..": "`last` names no step folder ('..')",
    "step-000004/trainer": "`last` names no step folder",
    "/etc": "`last` names no step folder ('/etc')",
    "kovqa.json": "`last` names no step folder",
    r"\ud800": "`last` names no step folder",
    "x" * 100_000: "`last` names no step folder ('xxx",
}


@pytest.mark.parametrize("pointer", LOST)
def test_a_run_goes_on_from_its_newest_whole_checkpoint_without_its_pointer(
    resume: Plan, plan: Plan, stopped: Path, pointer: str | None
) -> None:
    leave_checkpoint(stopped, 4)
    (stopped / "step-000012.part").mkdir()  # half written
    (stopped / "last").unlink()
    if pointer is not None:
        (stopped / "last").write_text(pointer, "latin-1")
    point = find_resume_point(stopped, checksums=False)
    assert point.step == stopped / "step-000008"
    planned = resume(stopped)
    assert planned.resumed_step == "step-000008"
    (said,) = point.notes
    assert said in planned.warnings
    assert said.endswith(": going on from step-000008, the newest whole checkpoint")
    assert said.startswith(LOST[pointer])
    with pytest.raises(SettingsError, match="already holds a run"):
        plan(stopped)


@pytest.mark.parametrize("listed", [True, False], ids=["with a list", "of an earlier version"])
@pytest.mark.parametrize(
    "gone",
    ["trainer", "model.safetensors", "trainer/state.json", "trainer/optimizer.safetensors", "kovqa.json"],
)
def test_half_a_checkpoint_is_refused_with_the_way_on(
    resume: Plan, stopped: Path, gone: str, listed: bool
) -> None:
    step = stopped / "step-000008"
    if listed:
        note_files(step)
    shutil.rmtree(step / gone) if gone == "trainer" else (step / gone).unlink()
    for dry_run in (True, False):
        with pytest.raises(ModelError, match=f"step-000008 cannot be resumed: it lacks {gone}") as caught:
            resume(stopped, dry_run=dry_run)
        assert f"kovqa runs rerun '{stopped}'" in caught.value.hint
    (stopped / "last").unlink()  # nor is it begun anew
    with pytest.raises(ModelError, match=f"it lacks {gone}"):
        find_resume_point(stopped, checksums=False)
    leave_checkpoint(stopped, 4)
    (stopped / "last").write_text("step-000008\n")
    planned = resume(stopped)
    assert planned.resumed_step == "step-000004"
    assert f"it lacks {gone}" in planned.warnings[0]
    assert ": going on from step-000004, the newest" in planned.warnings[0]
    shutil.rmtree(step)
    assert find_resume_point(stopped, checksums=False).step == stopped / "step-000004"


def test_a_run_whose_checkpoints_are_all_gone_is_not_begun_anew_unasked(resume: Plan, stopped: Path) -> None:
    shutil.rmtree(stopped / "step-000008")
    with pytest.raises(ModelError, match="names step-000008, and there is no step folder any more") as caught:
        resume(stopped)
    assert f"rm '{stopped}/last'" in caught.value.hint
    (stopped / "last").unlink()
    (stopped / "last").mkdir()
    with pytest.raises(ModelError, match="last is a folder"):
        resume(stopped)


def test_files_that_a_family_needs_and_cut_off_weights_count(stopped: Path) -> None:
    step = stopped / "step-000008"
    (step / "tokenizer").mkdir()
    (step / "tokenizer" / "spm.model").write_text("x")
    (step / "model.safetensors").write_text("weights")
    note_files(step)
    (step / "kovqa.json").write_text("written again with the score")
    assert missing_checkpoint_files(step) == []
    (step / "tokenizer" / "spm.model").unlink()
    (step / "model.safetensors").write_text("weig")
    assert missing_checkpoint_files(step) == ["model.safetensors", "tokenizer/spm.model"]


def test_step_folders_are_in_order_of_their_numbers(tmp_path: Path) -> None:
    for step in (1_000_000, 999_999, 2):
        leave_checkpoint(tmp_path, step)
    (tmp_path / "last").unlink()
    names = [path.name for path in list_step_folders(tmp_path)]
    assert names == ["step-000002", "step-999999", "step-1000000"]
    assert find_resume_point(tmp_path, checksums=False).step == tmp_path / "step-1000000"


def test_a_moved_run_is_called_by_where_it_lies(resume: Plan, stopped: Path, tmp_path: Path) -> None:
    moved = tmp_path / "a run 100% $HOME"
    stopped.rename(moved)
    run: Run = read_run(moved / RUN_FILE)
    assert run.folder == moved
    planned = resume(moved)
    assert (planned.run.folder, planned.launch.folder) == (moved, moved)
    assert any(str(moved / RUN_FILE) in word for word in planned.launch.argv)
    said = refusal(resume, moved, sets=["optim.lr=1"])
    assert f"{moved} was started" in said
    assert f"-o '{moved}' --change optim.lr=1" in said
    assert "내 run" not in said


def test_who_watches_may_be_another_at_a_resume(resume: Plan, stopped: Path) -> None:
    """No setting of the experiment, so nothing is refused; the run keeps what was typed last."""
    planned = resume(stopped, sets=["train.track=[]"])
    assert planned.run.recipe.train.track == ()
    assert planned.origin["recipe.train.track"] == "--set train.track=[]"
    assert "without --change" in refusal(resume, stopped, changes=["train.track=[wandb]"])
    assert "did you mean trackio?" in refusal(resume, stopped, sets=["train.track=[trackoi]"])


def test_a_run_begun_with_epochs_for_steps_goes_on_by_the_same_command(
    plan: Plan, resume: Plan, tmp_path: Path
) -> None:
    folder, typed = tmp_path / "run", [*SMALL, "optim.epochs=2"]
    begun = plan(folder, sets=typed)
    assert any("--set optim.epochs=2 replaces optim.steps 4000" in note for note in begun.notes)
    with claim_planned_run(begun, pytest.fail):
        pass
    leave_checkpoint(folder, 2)
    assert plan(folder, sets=typed, resume=True).run.recipe.optim.epochs == 2
    assert "begin a new run" in refusal(resume, folder, sets=[*SMALL, "optim.steps=9"])
