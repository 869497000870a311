"""How settings of a run are resolved, and how one optimizer step is split."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.paths import settings_files
from kovqa_core.settings.resolve import environment_overrides, load_profile, load_recipe, resolve_settings
from kovqa_core.settings.run import make_run, read_run, split_global_batch, write_run

_SHIPPED = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.stem for path in (_SHIPPED / "core" / "kovqa_core" / "recipes").glob("*.yaml"))
PROFILES = sorted(path.stem for path in (_SHIPPED / "profiles").glob("*.yaml"))


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty kovqa folder, so that nobody's own profiles or recipes take part."""
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# ------------------------------------------------------------------------------- split_global_batch


@pytest.mark.parametrize(
    ("global_batch", "holds", "processes", "plan"),
    [
        (512, 128, 4, (128, 1)),
        (512, 128, 1, (128, 4)),
        (512, 100, 1, (64, 8)),
        (8, 512, 1, (8, 1)),
        (12, 5, 1, (4, 3)),
        (7, 3, 1, (1, 7)),
        (4, 1, 4, (1, 1)),
    ],
)
def test_split_global_batch(global_batch: int, holds: int, processes: int, plan: tuple[int, int]) -> None:
    assert split_global_batch(global_batch, holds, processes) == plan


def test_split_global_batch_keeps_the_global_batch_and_uses_what_a_process_holds() -> None:
    for each, holds, processes in itertools.product(range(1, 40), (1, 3, 8, 50), (1, 2, 3)):
        micro, accumulate = split_global_batch(each * processes, holds, processes)
        assert micro * accumulate * processes == each * processes
        assert micro <= holds
        assert not [n for n in range(micro + 1, min(each, holds) + 1) if each % n == 0]


@pytest.mark.parametrize(("global_batch", "near"), [(10, 8), (2, 4), (15, 12)])
def test_split_global_batch_refuses_what_processes_cannot_share(global_batch: int, near: int) -> None:
    with pytest.raises(SettingsError) as caught:
        split_global_batch(global_batch, 8, 4)
    assert f"{global_batch} cannot be shared by 4 processes" in caught.value.message
    assert f"--set optim.global_batch={near}" in caught.value.hint
    assert split_global_batch(near, 8, 4)


# ------------------------------------------------------------------- shipped recipes, profiles


def test_recipes_and_profiles_are_shipped() -> None:
    assert {"kobeit3", "tiny"} <= set(RECIPES)
    assert {"cpu", "rtx3090x4", "a100x1", "h100x8"} <= set(PROFILES)
    assert set(settings_files("recipes")) == set(RECIPES)
    assert set(settings_files("profiles")) == set(PROFILES)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_means_the_same_on_every_profile(recipe: str, profile: str, tmp_path: Path) -> None:
    settings = resolve_settings(recipe, profile)
    run = make_run(settings.recipe, settings.profile, tmp_path, [])
    processes = settings.profile.processes
    assert run.micro_batch * run.accumulate * processes == load_recipe(recipe).optim.global_batch
    fixed = settings.recipe.optim.loss_micro_batch
    assert run.micro_batch == fixed or run.micro_batch <= settings.profile.max_micro_batch(recipe)
    assert settings.recipe == load_recipe(recipe)
    assert settings.profile == load_profile(profile)


# ------------------------------------------------------------------------------- precedence


def test_file_then_variable_then_set_then_flag() -> None:
    variable = {"KOVQA_OPTIM__LR": "1e-1", "KOVQA_SEED": "9", "HOME": "x"}
    in_file = load_recipe("tiny").optim.lr
    assert resolve_settings("tiny", "cpu").recipe.optim.lr == in_file
    assert resolve_settings("tiny", "cpu", environ=variable).recipe.optim.lr == 0.1
    assert resolve_settings("tiny", "cpu", ["optim.lr=0.2"], environ=variable).recipe.optim.lr == 0.2
    settings = resolve_settings("tiny", "cpu", ["optim.lr=0.2"], {"optim.lr": "0.3"}, variable)
    assert settings.recipe.optim.lr == 0.3
    assert settings.origin["recipe.optim.lr"].startswith("flag")
    assert settings.recipe.seed == load_recipe("tiny").seed


def test_profile_keys_go_to_the_profile() -> None:
    settings = resolve_settings(
        "tiny", "cpu", ["profile.threads=3"], environ={"KOVQA_PROFILE__PRECISION": "bf16"}
    )
    assert settings.profile.threads == 3
    assert settings.profile.precision == "bf16"
    assert settings.recipe == load_recipe("tiny")


@pytest.mark.parametrize("text", ["profile.from_machine=true", "profile.from_machine = false"])
def test_what_would_have_no_effect_is_refused(text: str) -> None:
    """The machine's GPUs are read into a profile's file before anything is put over it."""
    with pytest.raises(
        SettingsError, match=r"--set profile\.from_machine.*in a profile's file alone"
    ) as refused:
        resolve_settings("tiny", "a100x4", [text])
    assert "-p nvidia" in refused.value.hint
    with pytest.raises(SettingsError, match="KOVQA_PROFILE__FROM_MACHINE"):
        resolve_settings("tiny", "a100x4", environ={"KOVQA_PROFILE__FROM_MACHINE": "true"})


def test_variables_become_assignments() -> None:
    environ = {"KOVQA_OPTIM__LR": "1e-5", "KOVQA_HOME": "/x", "OTHER__A": "1", "KOVQA_DATA__INDEX": "d"}
    assert list(environment_overrides(environ)) == ["data.index=d", "optim.lr=1e-5"]


def test_the_users_own_file_wins_over_the_shipped_one(own_home: Path) -> None:
    (own_home / "profiles").mkdir(parents=True)
    (own_home / "profiles" / "cpu.yaml").write_text("threads: 7\nmicro_batch: {default: 2}\n")
    assert load_profile("cpu").threads == 7
    assert load_profile("cpu").name == "cpu"


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    path.write_text("threads: 5\n")
    assert load_profile(str(path)).name == "box"


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"unknown profile 'rtx3090'; did you mean .*rtx3090x1"):
        load_profile("rtx3090")
    with pytest.raises(SettingsError, match="unknown recipe 'kobeit'; did you mean kobeit3"):
        load_recipe("kobeit")


# ---------------------------------------------------------------------------------- run.yaml


def test_a_run_comes_back_from_its_file(tmp_path: Path) -> None:
    settings = resolve_settings("kobeit3", "rtx3090x4", ["data.index=자료/색인"])
    words = ["kovqa", "train", "--set", "a: b"]
    run = make_run(settings.recipe, settings.profile, tmp_path / "run", words, settings.origin)
    assert read_run(write_run(run)) == run
    assert run.folder.is_absolute()
    assert run.origin["recipe.data.index"] == "--set data.index=자료/색인"


def test_a_run_file_of_before_the_manifest_is_still_read(tmp_path: Path) -> None:
    settings = resolve_settings("tiny", "cpu")
    path = write_run(make_run(settings.recipe, settings.profile, tmp_path / "run", []))
    path.write_text(path.read_text("utf-8") + "versions:\n  python: 3.11.7\n", "utf-8")
    assert read_run(path).recipe == settings.recipe


# ------------------------------------------------------------------- one thing in two units


def test_the_unit_that_is_given_last_counts() -> None:
    assert load_recipe("tiny").optim.steps
    settings = resolve_settings("tiny", "cpu", ["optim.epochs=3", "optim.warmup_epochs=0.5"])
    optim = settings.recipe.optim
    assert (optim.epochs, optim.steps, optim.warmup_epochs, optim.warmup_steps) == (3, None, 0.5, 0)
    assert settings.origin["recipe.optim.steps"] == "--set optim.epochs=3"
    steps, warmup = settings.replaced
    assert (steps.key, steps.value, steps.by_place) == ("optim.steps", 4000, "--set optim.epochs=3")
    assert "tiny.yaml:" in steps.place
    assert warmup.key == "optim.warmup_steps"


def test_the_other_way_round_and_through_every_layer() -> None:
    variable = {"KOVQA_OPTIM__EPOCHS": "3"}
    assert resolve_settings("tiny", "cpu", environ=variable).recipe.optim.epochs == 3
    optim = resolve_settings(
        "kobeit3", "cpu", ["optim.steps=7", "optim.warmup_steps=0"], None, variable
    ).recipe.optim
    assert (optim.epochs, optim.steps, optim.warmup_epochs, optim.warmup_steps) == (None, 7, 0.0, 0)


def test_an_evaluation_by_epochs_replaces_one_by_steps() -> None:
    assert resolve_settings("tiny", "cpu", ["eval.every_epochs=2"]).recipe.eval.every_steps is None
    both = resolve_settings("tiny", "cpu", ["eval.every_epochs=2", "eval.every_steps=5"])
    assert (both.recipe.eval.every_steps, both.replaced) == (5, [])


@pytest.mark.parametrize(
    "sets",
    [
        ["optim.epochs=3", "optim.steps=9"],
        ["optim.warmup_steps=3", "optim.warmup_epochs=1"],
        ["optim={epochs: 3, steps: 9}"],
    ],
)
def test_both_units_at_once_are_refused_by_name(sets: list[str]) -> None:
    with pytest.raises(SettingsError, match="say the same in two units") as refused:
        resolve_settings("tiny", "cpu", sets)
    assert all(f"--set {text}" in refused.value.message for text in sets)


def test_a_unit_that_says_nothing_is_no_second_one() -> None:
    """As it had to be typed before."""
    sets = ["optim.epochs=null", "optim.steps=9", "optim.warmup_epochs=0", "optim.warmup_steps=4"]
    optim = resolve_settings("kobeit3", "cpu", sets).recipe.optim
    assert (optim.epochs, optim.steps, optim.warmup_epochs, optim.warmup_steps) == (None, 9, 0.0, 4)
