"""Keys of recipes and profiles by their old names: read everywhere, with one warning that names the new."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.index.reader import open_index
from kovqa_core.models.checkpoint_info import CheckpointInfo, write_checkpoint_info
from kovqa_core.models.config import read_model_settings
from kovqa_core.models.family import DEFAULT_LOADING, load_family
from kovqa_core.models.fusion.import_original import config_from_tensors
from kovqa_core.paths import settings_files
from kovqa_core.plan.claim import claim_planned_run
from kovqa_core.plan.training import plan_training
from kovqa_core.runs.compare import compare_runs
from kovqa_core.settings import overrides, strict_yaml
from kovqa_core.settings.new_files import new_settings
from kovqa_core.settings.resolve import (
    ResolvedSettings,
    load_document,
    load_profile,
    load_recipe,
    resolve_settings,
)
from kovqa_core.settings.run import RUN_FILE, Run, make_run, read_run, write_run

from tests.conftest import FUSION, SMALL, Kovqa, Small, sets

# Key by its old and by its new name, a value, and a shipped recipe that has such a key.
KEYS = [
    ("model.image", "model.image_size", 192, "tiny"),
    ("model.patch", "model.patch_size", 16, "tiny"),
    ("model.classes", "model.num_classes", 7, "tiny"),
    ("model.vocab", "model.vocab_size", 640, "tiny"),
    ("model.fresh", "model.reinit", ["pooler"], "tiny"),
    ("model.caption.beams", "model.caption.num_beams", 5, "tiny-caption"),
    ("model.image", "model.image_size", 192, "tiny-fusion"),
    ("model.classes", "model.num_classes", 7, "tiny-fusion"),
    ("model.hidden", "model.hidden_size", 48, "tiny-fusion"),
    ("optim.clip", "optim.max_grad_norm", 0.5, "tiny"),
    ("optim.ema", "optim.ema_decay", 0.75, "tiny-vlm"),
    ("optim.decay_vectors", "optim.decay_bias_and_norm", True, "tiny"),
    ("optim.text_first_steps", "optim.freeze_vision_steps", 3, "tiny"),
    ("profile.prologue", "profile.setup", ["module load cuda"], "tiny"),
    ("profile.wrap", "profile.command_prefix", ["echo"], "tiny"),
    ("profile.interface", "profile.network_interface", "ib0", "tiny"),
    ("profile.hang_minutes", "profile.watchdog_minutes", 2.5, "tiny"),
    ("profile.slurm.warn_seconds", "profile.slurm.signal_seconds", 45, "tiny"),
]
renamed_keys = pytest.mark.parametrize(("old", "new", "value", "recipe"), KEYS)


@pytest.fixture(autouse=True)
def fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No warning has been printed yet; and nobody's own profiles or recipes take part."""
    monkeypatch.setattr(overrides, "_warned", set())
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def steps(key: str) -> list[str]:
    """The way to a key in its own file."""
    return key.removeprefix("profile.").split(".")


def at(values: Any, path: list[str]) -> Any:
    for step in path:
        values = values[step]
    return values


def of(settings: ResolvedSettings | Run, key: str) -> Any:
    """The value of a key; of the model's part as the family reads it."""
    if key.startswith("profile."):
        return at(settings.profile.model_dump(mode="json"), steps(key))
    values = settings.recipe.model_dump(mode="json")
    config = read_model_settings(strict_yaml.SettingsDocument(values))
    return at({**values, "model": config.model_dump(mode="json")}, steps(key))


def put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for step in path[:-1]:
        values = values.setdefault(step, {})
    values[path[-1]] = value


def drop(values: dict[str, Any], path: list[str]) -> Any:
    """Take a value out; None where there is none."""
    for step in path[:-1]:
        values = values.get(step) or {}
    return values.pop(path[-1], None)


def write_old(folder: Path, old: str, new: str, value: Any, recipe: str) -> Path:
    """A shipped recipe or profile with one key by its old name, as a file of the user's own."""
    profile = old.startswith("profile.")
    values = load_document("profiles" if profile else "recipes", "cpu" if profile else recipe).values
    drop(values, steps(new))
    put(values, steps(old), value)
    path = folder / "mine.yaml"
    path.write_text(strict_yaml.dump_yaml(values), "utf-8")
    return path


def resolved(file: Path, old: str, *assignments: str) -> ResolvedSettings:
    profile = old.startswith("profile.")
    return resolve_settings("tiny" if profile else str(file), str(file) if profile else "cpu", assignments)


def warning_line(old: str, new: str, place: str) -> str:
    return rf"kovqa: {place}: key '{old}' is now called '{new}'; the old name still works\n"


# ------------------------------------------------------------------------ files, variables, --set


@renamed_keys
def test_a_file_with_the_old_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, value: Any, recipe: str
) -> None:
    path = write_old(tmp_path, old, new, value, recipe)
    for _ in range(2):  # the second time in silence
        assert of(resolved(path, old), new) == value
    captured = capsys.readouterr()
    line = warning_line(".".join(steps(old)), ".".join(steps(new)), rf"{re.escape(str(path))}:\d+:\d+")
    assert re.fullmatch(line, captured.err), captured.err
    assert captured.out == ""


@renamed_keys
def test_a_new_name_changes_what_a_file_calls_by_the_old(
    tmp_path: Path, old: str, new: str, value: Any, recipe: str
) -> None:
    path = write_old(tmp_path, old, new, "never read", recipe)
    for name in (old, new):
        assert of(resolved(path, old, f"{name}={json.dumps(value)}"), new) == value


@renamed_keys
def test_the_old_name_typed(
    capsys: pytest.CaptureFixture[str], old: str, new: str, value: Any, recipe: str
) -> None:
    text = json.dumps(value)
    typed = resolve_settings(recipe, "cpu", [f"{old}={text}"])
    assert of(typed, new) == value
    assert re.fullmatch(warning_line(old, new, re.escape(f"--set {old}={text}")), capsys.readouterr().err)
    today = resolve_settings(recipe, "cpu", [f"{new}={text}"])
    assert (typed.recipe, typed.profile) == (today.recipe, today.profile)
    assert typed.origin.keys() == today.origin.keys()


@renamed_keys
def test_the_old_name_as_a_variable(
    capsys: pytest.CaptureFixture[str], old: str, new: str, value: Any, recipe: str
) -> None:
    text = json.dumps(value)
    variable = {f"KOVQA_{old.upper().replace('.', '__')}": text}
    assert of(resolve_settings(recipe, "cpu", environ=variable), new) == value
    assert re.fullmatch(
        warning_line(old, new, re.escape("=".join(*variable.items()))), capsys.readouterr().err
    )
    # --set wins over a variable, whatever either of them calls the key
    assert (
        of(resolve_settings(recipe, "cpu", [f"{new}={text}"], environ=dict.fromkeys(variable, "x")), new)
        == value
    )


def test_old_names_inside_a_value_that_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    settings = resolve_settings(
        "tiny", "cpu", ["optim={global_batch: 8, steps: 1, lr: 1e-3, clip: 2, ema: 0.5}"]
    )
    assert (settings.recipe.optim.max_grad_norm, settings.recipe.optim.ema_decay) == (2, 0.5)
    assert capsys.readouterr().err.count("\n") == 2


def test_the_settings_of_an_imported_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match="no usable"):  # the setting was read; there are no tensors
        config_from_tensors({}, Path("x.pth"), ["model.image=64"])
    assert "now called 'model.image_size'" in capsys.readouterr().err


def test_a_family_that_is_typed_decides_the_names() -> None:
    settings = resolve_settings("tiny-vlm", "cpu", ["model={hidden: 48}", "family=fusion"])
    assert settings.recipe.model == {"hidden_size": 48}


# --------------------------------------------------------------------------------- mistakes


@renamed_keys
def test_both_names_in_one_file_are_a_mistake(
    tmp_path: Path, old: str, new: str, value: Any, recipe: str
) -> None:
    path = write_old(tmp_path, old, new, value, recipe)
    values = yaml.safe_load(path.read_text("utf-8"))
    put(values, steps(new), value)
    path.write_text(strict_yaml.dump_yaml(values), "utf-8")
    with pytest.raises(SettingsError) as caught:
        resolved(path, old)
    name = ".".join(steps(new))
    place = rf"{re.escape(str(path))}:\d+:\d+"
    expected = rf"{place}: key '{name}' is given twice, by its old and by its new name \({place}\)"
    assert re.fullmatch(expected, caught.value.message), caught.value.message


@renamed_keys
def test_both_names_typed_are_a_mistake(old: str, new: str, value: Any, recipe: str) -> None:
    for first, second in ((old, new), (new, old)):
        with pytest.raises(SettingsError) as caught:
            resolve_settings(recipe, "cpu", [f"{first}={json.dumps(value)}", f"{second}={json.dumps(value)}"])
        assert f"--set {old}=" in caught.value.message
        assert f"--set {new}=" in caught.value.message


@renamed_keys
def test_only_new_names_are_suggested(old: str, new: str, value: Any, recipe: str) -> None:
    for misspelt in (f"{old}_", f"{new}_"):
        with pytest.raises(SettingsError) as caught:
            of(resolve_settings(recipe, "cpu", [f"{misspelt}={json.dumps(value)}"]), new)
        assert f"unknown key '{steps(misspelt)[-1]}'" in caught.value.message
        names_ = re.findall(r"\w+", caught.value.message.split(";")[-1] + caught.value.hint)
        assert steps(old)[-1] not in names_
    assert steps(new)[-1] in caught.value.message + caught.value.hint


def test_what_is_shipped_has_new_names_only(capsys: pytest.CaptureFixture[str]) -> None:
    for recipe in settings_files("recipes"):
        read_model_settings(strict_yaml.SettingsDocument(load_recipe(recipe).model_dump(mode="json")))
    for profile in settings_files("profiles"):
        load_profile(profile)
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------- runs and checkpoints of then


def run_of(small: Small, folder: Path, recipe: str, *assignments: str) -> Run:
    """A run that was planned, and never started."""
    flags = {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}
    settings = resolve_settings(recipe, "cpu", assignments, flags)
    folder.mkdir()
    run = make_run(settings.recipe, settings.profile, folder, [], settings.origin)
    write_run(run)
    return run


def write_as_then(file: Path) -> str:
    """Write a `run.yaml` anew, with every key by its old name."""
    values = yaml.safe_load(file.read_text("utf-8"))
    family = values["recipe"]["family"]
    for old, new, _, recipe in KEYS:
        if recipe == "tiny-vlm" or load_recipe(recipe).family == family or not old.startswith("model."):
            before = "" if old.startswith("profile.") else "recipe."
            if (value := drop(values, f"{before}{new}".split("."))) is not None:
                put(values, f"{before}{old}".split("."), value)
            if (place := values["origin"].pop(f"{before}{new}", None)) is not None:
                values["origin"][f"{before}{old}"] = place
    file.write_text(strict_yaml.dump_yaml(values), "utf-8")
    return file.read_text("utf-8")


@renamed_keys
def test_a_stored_run_is_the_same_run(
    small: Small,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    value: Any,
    recipe: str,
) -> None:
    run = run_of(small, tmp_path / "a", recipe, f"{new}={json.dumps(value)}")
    assert re.search(rf"^ *{steps(old)[-1]}:", write_as_then(tmp_path / "a" / RUN_FILE), re.MULTILINE)
    assert read_run(tmp_path / "a" / RUN_FILE) == run
    assert capsys.readouterr().err == ""  # nobody can do anything about it
    run_of(small, tmp_path / "b", recipe, f"{new}={json.dumps(value)}")
    assert compare_runs(tmp_path / "a", tmp_path / "b").differences == []


# One family is enough; a vocabulary of another size would not go with the tokenizer.
@pytest.mark.parametrize(
    ("old", "new", "value"), [key[:3] for key in KEYS if key[3] == "tiny" and key[0] != "model.vocab"]
)
def test_a_stored_run_goes_on(small: Small, tmp_path: Path, old: str, new: str, value: Any) -> None:
    flags = {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}
    run = run_of(small, tmp_path / "a", "tiny", f"{new}={json.dumps(value)}")
    write_as_then(tmp_path / "a" / RUN_FILE)
    for name in (old, new):
        planned = plan_training(
            "tiny",
            None,
            sets=[f"{name}={json.dumps(value)}"],
            flags=flags,
            folder=run.folder,
            resume=True,
            dry_run=True,
        )
        assert (planned.run.recipe, planned.run.profile) == (run.recipe, run.profile)
    with claim_planned_run(planned, pytest.fail):
        pass
    text = (tmp_path / "a" / RUN_FILE).read_text("utf-8")  # written anew, by the names of today
    assert not re.search(rf"^ *{steps(old)[-1]}:", text, re.MULTILINE)
    kept = plan_training(
        "tiny", None, sets=["seed=42"], flags=flags, folder=run.folder, resume=True, dry_run=True
    )
    assert kept.run.recipe == run.recipe  # what was typed then need not be typed again


@pytest.mark.parametrize("recipe", ["tiny", "tiny-caption", "nia"])
def test_a_checkpoint_of_then(small: Small, tmp_path: Path, recipe: str) -> None:
    is_fusion = recipe == "nia"
    index = small.captions if recipe == "tiny-caption" else small.index
    flags = {"data.index": str(index), "model.tokenizer": str(small.tokenizer)}
    settings = resolve_settings(recipe, "cpu", FUSION if is_fusion else SMALL, flags).recipe
    answers = [] if recipe == "tiny-caption" else open_index(index).answers()
    family = load_family(settings.family)
    model, processor, _ = family.new_model(settings, answers)
    family.save_model(model, processor, tmp_path)
    file = tmp_path / "config.json"
    today, values = file.read_text("utf-8"), json.loads(file.read_text("utf-8"))
    changed = []
    for old, new, _, of_recipe in KEYS:
        if of_recipe != "tiny-vlm" and load_recipe(of_recipe).family == settings.family and "model." in old:
            put(values, old.split(".")[1:], drop(values, new.split(".")[1:]))
            changed.append(old)
    assert len(changed) == (3 if is_fusion else 6)
    file.write_text(json.dumps(values), "utf-8")
    again, read = family.load_model(tmp_path, DEFAULT_LOADING)
    (tmp_path / "b").mkdir()
    family.save_model(again, read, tmp_path / "b")
    assert (tmp_path / "b" / "config.json").read_text("utf-8") == today
    if not is_fusion:
        (tmp_path / "c").mkdir()
        write_checkpoint_info(tmp_path, CheckpointInfo(settings.family, settings.task))
        family.export_model(tmp_path, tmp_path / "c", DEFAULT_LOADING)
        assert (tmp_path / "c" / "config.json").read_text("utf-8") == today


# -------------------------------------------------------------------------- files of one's own


def test_a_copy_has_new_names_and_keeps_its_comments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "old.yaml"
    source.write_text(
        "wrap: [echo]  # 컨테이너\nslurm: {warn_seconds: 60, qos: x}  # slow\nhang_minutes: 3\n", "utf-8"
    )
    changes = ["command_prefix=[nice]", "slurm.warn_seconds=90", "prologue=[module load cuda]"]
    made = new_settings("profiles", str(tmp_path / "new.yaml"), str(source), changes)
    assert made.read_text("utf-8").splitlines()[1:] == [
        "command_prefix: [nice]  # 컨테이너",
        "slurm: {signal_seconds: 90, qos: x}  # slow",
        "watchdog_minutes: 3",
        "setup: [module load cuda]",
    ]
    assert capsys.readouterr().err.count("the old name still works") == 5  # three in the file, two typed
    load_profile(str(made))
    assert capsys.readouterr().err == ""


def test_a_copy_of_a_value_typed_whole(tmp_path: Path) -> None:
    typed = "model={size: tiny, image: 96, patch: 32, caption: {beams: 2}}"
    made = new_settings("recipes", str(tmp_path / "new.yaml"), "tiny", [typed, "optim.clip=1"])
    recipe = load_recipe(str(made))
    assert recipe.model == {"size": "tiny", "image_size": 96, "patch_size": 32, "caption": {"num_beams": 2}}
    assert recipe.optim.max_grad_norm == 1
    assert not re.search(r"\b(image|patch|beams|clip):", made.read_text("utf-8").split("\n", 1)[1])


# ------------------------------------------------------------------------------ command line


def test_the_warning_is_one_line_and_no_part_of_an_answer(kovqa: Kovqa, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    done = kovqa("recipes", "new", "mine", "--from", "tiny", *sets("optim.clip=1"), "--json", KOVQA_HOME=home)
    line = warning_line("optim.clip", "optim.max_grad_norm", "--set optim.clip=1")
    assert (done.returncode, done.stderr) == (0, line.replace("\\n", "\n"))
    json.loads(done.stdout)
    both = ("optim.clip=1", "optim.max_grad_norm=1")
    done = kovqa("recipes", "new", "both", "--from", "tiny", *sets(*both), KOVQA_HOME=home)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--set optim.max_grad_norm=1: key 'optim.max_grad_norm' is given twice" in done.stderr
    schema = json.loads(kovqa("profiles", "schema").stdout)
    assert "command_prefix" in schema["properties"]
    assert not {"wrap", "prologue", "interface", "hang_minutes"} & schema["properties"].keys()
