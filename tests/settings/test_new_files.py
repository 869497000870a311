"""New recipes and profiles from old ones: comments stay, values change, nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.paths import settings_files
from kovqa_core.settings.new_files import edit_yaml_text, new_settings
from kovqa_core.settings.overrides import apply_overrides
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.strict_yaml import parse_yaml

from tests.conftest import Kovqa


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "내 집"))
    return tmp_path / "내 집"


CHANGES = [
    ["optim.lr=1e-5", "data.index=데이터/a, b", "optim.betas=[0.9, 0.99]", "save.keep=3"],
    ["model.caption.mask=0.5", "model.new.deep.key=[1, {a: b}]", "optim.max_grad_norm=null", "seed="],
    ["model={size: tiny}", "data.kinds=[1, 2]", "data={}", "data.flip=true"],
]


@pytest.mark.parametrize("sets", CHANGES)
@pytest.mark.parametrize("recipe", sorted(settings_files("recipes")))
def test_a_changed_text_says_what_override_says(recipe: str, sets: list[str]) -> None:
    text = settings_files("recipes")[recipe].read_text("utf-8")
    changed = edit_yaml_text(text, recipe, sets)
    assert parse_yaml(changed, "").values == apply_overrides(parse_yaml(text, ""), sets, "--set").values
    if sets is not CHANGES[2]:  # that one replaces whole parts, with what was written inside them
        comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
        assert [line.partition("#")[2] for line in changed.splitlines() if "#" in line] == comments


def test_a_value_is_changed_where_it_stands() -> None:
    text = "# top\na:   # why a\n  b: 1   # why b\n  # tail\nc: {d: x, e: y}  # why c\nempty:  # nothing\n"
    assert edit_yaml_text(text, "f", ["a.b=2", "a.k=3", "c.d=x, y", "c.n=on", "empty=5"]) == (
        "# top\na:   # why a\n  b: 2   # why b\n  k: 3\n  # tail\nc: {d: 'x, y', e: y, n: on}  # why c\n"
        "empty: 5  # nothing\n"
    )


def test_a_value_that_others_point_to_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"f:2:4: aliases \(\*x\) are not read"):
        edit_yaml_text("a: &x {k: 1}\nb: *x\n", "f", ["a.k=2"])


def test_a_new_recipe_is_found_by_its_name(kovqa: Kovqa, home: Path) -> None:
    done = kovqa("recipes", "new", "내-실험", "--from", "kobeit3", "--set", "optim.lr=1e-5", KOVQA_HOME=home)
    assert done.returncode == 0, done.stderr
    path = home / "recipes" / "내-실험.yaml"
    assert done.stdout.strip() == str(path)
    assert "kovqa train --recipe 내-실험 --dry-run" in done.stderr
    text = path.read_text("utf-8")
    assert text.startswith("# kobeit3 with optim.lr=1e-5\n# BEiT-3 large")
    assert "lr: 1e-5\n" in text
    mine, shipped = load_recipe("내-실험"), load_recipe("kobeit3")
    assert mine.name == "내-실험"
    assert mine.optim.lr == 1e-5
    assert mine.model_copy(update={"name": shipped.name, "optim": shipped.optim}) == shipped
    listed = kovqa("recipes", "-q", KOVQA_HOME=home).stdout.split()
    assert "내-실험" in listed


def test_nothing_is_replaced_or_hidden_without_force(home: Path, tmp_path: Path) -> None:
    path = new_settings("profiles", "desk", "rtx3090x1", ["loader_workers=2"])
    assert load_profile("desk").loader_workers == 2
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="already exists"):
        new_settings("profiles", "desk", "rtx3090x1")
    with pytest.raises(SettingsError, match="would hide it"):
        new_settings("profiles", "cpu", "rtx3090x1")
    assert path.read_bytes() == before
    new_settings("profiles", "desk", "desk", ["threads=3"], force=True)
    assert (load_profile("desk").loader_workers, load_profile("desk").threads) == (2, 3)
    there = new_settings("profiles", str(tmp_path / "어디든.yaml"), "desk")
    assert there == tmp_path / "어디든.yaml"
    assert load_profile(str(there)).name == "어디든"


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("optim.layer_deacy=0.9", "layer_decay"),
        ("model.imagee=224", "image_size"),
        ("optim.lr=fast", "optim.lr"),
        ("family=bert", "unknown model family"),
        ("optim.lr", "expected key=value"),
        ("seed.a=1", "no keys below"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(
    kovqa: Kovqa, home: Path, assignment: str, expected: str
) -> None:
    done = kovqa("recipes", "new", "bad", "--from", "kobeit3", "--set", assignment, KOVQA_HOME=home)
    assert done.returncode == 2
    assert expected in done.stderr
    assert not (home / "recipes").exists()


def test_what_is_copied_must_be_there(kovqa: Kovqa, home: Path) -> None:
    done = kovqa("recipes", "new", "mine", "--from", "none.yaml", KOVQA_HOME=home)
    assert (done.returncode, done.stderr) == (2, "kovqa: no such file: none.yaml [KOVQA-2223]\n")
    done = kovqa("recipes", "new", "mine", "--from", "tiny", "--set", "data.index=a\n b", KOVQA_HOME=home)
    assert done.returncode == 0, done.stderr
    assert load_recipe("mine").data.index == "a b"


def test_a_name_is_no_way_out_of_the_folder(kovqa: Kovqa, home: Path) -> None:
    done = kovqa("recipes", "new", "a b", "--from", "tiny", KOVQA_HOME=home)
    assert done.returncode == 2
    assert "is not a name" in done.stderr


def test_a_new_recipe_with_epochs_has_no_steps(tmp_path: Path) -> None:
    path = new_settings("recipes", str(tmp_path / "에폭.yaml"), "tiny", ["optim.epochs=3"])
    assert load_recipe(str(path)).optim.epochs == 3
    assert load_recipe(str(path)).optim.steps is None
