"""The reference of keys, and what Tab offers behind `--set`: both are made of the settings' models, and fresh."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from kovqa_core.errors import KovqaError
from kovqa_core.models import FAMILIES
from kovqa_core.models.config import read_model_settings
from kovqa_core.models.recipe_keys import model_setting_keys, recipe_setting_keys
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import PROFILE, RECIPE
from kovqa_core.settings.setting_keys import SettingKey, setting_keys
from kovqa_core.settings.strict_yaml import build_settings, parse_yaml

from kovqa_cli import setting_completion
from kovqa_cli.setting_completion import read_key_lines, setting_completions
from kovqa_cli.shell_completion import join_broken_words
from tests.conftest import Kovqa, clean_env
from tools.settings_reference import reference_files

PROFILE_KEYS = setting_keys(Profile, renamed=PROFILE)
RECIPE_KEYS = recipe_setting_keys()
MODEL_KEYS = {family: model_setting_keys(family) for family in FAMILIES}
ALL_KEYS = [*PROFILE_KEYS, *RECIPE_KEYS, *(key for keys in MODEL_KEYS.values() for key in keys)]

# What another key must be for an example to make sense.
COMPANIONS = {
    "optim.epochs": "optim.steps: null", "optim.warmup_epochs": "optim.warmup_steps: 0",
    "optim.loss_micro_batch": "optim.global_batch: 64", "optim.layer_decay": "optim.head_lr_scale: 1",
    "model.patch_size": "model.image_size: 224", "model.custom": "model.size: custom",
    "model.fusion": "model.transformer: 1", "model.shuffle_choices": "model.choices: true",
    "model.tokens": "model.train: lora", "from_machine": "gpu: NVIDIA", "slurm.signal_seconds": "slurm.time: 24:00:00",
    "model.random_init": "model.train: full", "rendezvous": "nodes: 2", "offload_optimizer": "strategy: zero1",
    "offload_param": "strategy: zero3", "deepspeed": "strategy: zero1",
}  # fmt: skip


def example_problem(key: SettingKey, base: dict[str, str]) -> str:
    """What is wrong with a file that has a key's example; "": nothing.

    Args:
        key: of a profile, or a recipe.
        base: further lines, dotted.
    """
    lines = {**base, key.name: key.example}
    name, _, value = COMPANIONS.get(key.name, "").partition(": ")
    if name and (base.get("family") == "vlm" or name != "model.train"):
        lines[name] = value
    values: dict[str, object] = {}
    for name, text in lines.items():
        inside = values
        *outer, last = name.split(".")
        for part in outer:
            inside = inside.setdefault(part, {})  # type: ignore[assignment]
        inside[last] = parse_yaml(f"value: {text}", "x").values["value"]
    document = parse_yaml(json.dumps(values), "example")
    try:
        if "family" in base:
            build_settings(Recipe, document)
            read_model_settings(document)
        else:
            build_settings(Profile, document)
    except KovqaError as error:
        return str(error)
    return ""


def test_every_key_has_a_meaning_and_an_example_that_is_read() -> None:
    silent = [key.name for key in ALL_KEYS if not key.meaning]
    assert not silent
    assert not [key.name for key in ALL_KEYS if not key.example and key.name != "name"]
    usual = {"name": "x", "optim.lr": "1e-5", "optim.global_batch": "64"}
    wrong = {key.name: example_problem(key, {"name": "x"}) for key in PROFILE_KEYS if key.name != "name"}
    for family, keys in [("beit3", RECIPE_KEYS), *MODEL_KEYS.items()]:
        for key in keys:
            base = {**usual, "family": family, **({} if key.name == "optim.epochs" else {"optim.steps": "9"})}
            if key.name == "model.freeze":
                base |= {"model.fusion": "grid", "model.transformer": "1"}
            wrong[f"{family}: {key.name}"] = example_problem(key, base) if key.name != "name" else ""
    assert not {name: problem for name, problem in wrong.items() if problem}


def test_renamed_keys_are_named() -> None:
    named = {name for key in ALL_KEYS for name in key.old_names}
    old = [*(".".join(path) for path in PROFILE), *(".".join(map(str, path)) for path in RECIPE)]  # type: ignore[arg-type]
    assert named >= {*old, "model.image", "model.caption.beams", "model.hidden"}


@pytest.mark.parametrize("path", reference_files(), ids=lambda path: path.name)
def test_what_is_made_of_the_models_is_fresh(path: Path) -> None:
    """`python tools/settings_reference.py` writes it."""
    assert path.read_text("utf-8") == reference_files()[path]


def test_the_schema_of_recipes_has_each_familys_keys(kovqa: Kovqa) -> None:
    schema = json.loads(kovqa("recipes", "schema").stdout)
    assert schema["properties"]["family"]["enum"] == list(FAMILIES)
    assert "name" not in schema["required"]
    by_family = {rule["if"]["properties"]["family"]["const"]: rule["then"] for rule in schema["allOf"]}
    for family, keys in MODEL_KEYS.items():
        assert by_family[family]["properties"]["model"] == {"$ref": f"#/$defs/{family}"}
        own = schema["$defs"][family]
        assert {key.path[1] for key in keys} == set(own["properties"])
        assert own["additionalProperties"] is False
    one_line = kovqa("recipes", "schema", "--json").stdout
    assert json.loads(one_line) == {"schema": 1, **schema}
    assert kovqa("profiles", "schema", "--json").stdout.count("\n") == 1


# ------------------------------------------------------------------------------------ Tab


def offered(word: str, *parts: str) -> list[str]:
    lines = [line for line in read_key_lines() if line.part in (parts or ("recipe", "profile", "beit3"))]
    return [value for value, _ in setting_completions(lines, word)]


def test_keys_and_values_are_offered() -> None:
    assert offered("optim.l") == ["optim.loss_micro_batch=", "optim.lr=", "optim.layer_decay="]
    assert offered("data.augment=r") == ["data.augment=randaug"]
    # One key alone: with values, so that a shell writes what they share and no space behind it.
    assert offered("data.augm") == ["data.augment=none", "data.augment=crop", "data.augment=randaug"]
    assert offered("optim.lr") == ["optim.lr=", "optim.lr=3e-5"]
    assert offered("profile.slurm.ti") == ["profile.slurm.time="]
    assert offered("profile.launcher=s") == ["profile.launcher=srun", "profile.launcher=sbatch"]
    assert offered("model.text_rows=") == ["model.text_rows=carried", "model.text_rows=original"]
    assert offered("model.lora", "vlm")
    assert not offered("model.lora", "beit3")
    assert offered("nothing.here") == offered("nothing=") == []


def completed(shell: str, *words: str, **env: str) -> str:
    """What a shell's completion prints, with the modules that were loaded behind it."""
    script = (
        "import sys; sys.argv = ['kovqa']\nfrom kovqa_cli.main import run\n"
        "try: run()\nfinally: print(*(m in sys.modules for m in ('rich', 'yaml', 'kovqa_core.settings.profile')))"
    )
    given = {
        "bash": {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)},
        "powershell": {
            "_TYPER_COMPLETE_ARGS": " ".join(words),
            "_TYPER_COMPLETE_WORD_TO_COMPLETE": words[-1],
        },
    }.get(shell, {"_TYPER_COMPLETE_ARGS": " ".join(words), "_TYPER_COMPLETE_FISH_ACTION": "get-args"})
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=60, check=False,
        env=clean_env(_KOVQA_COMPLETE=f"complete_{shell}", **given, **env),
    )  # fmt: skip
    assert done.stderr == ""
    text, _, loaded = done.stdout.strip().rpartition("\n")
    assert loaded == "False False False"
    return text


def test_bash_gets_what_stands_behind_the_last_sign_and_light() -> None:
    words = ("kovqa", "train", "-o", '"a b"', "-r", "tiny-vlm", "--set", "model.loss", "=", "le")
    assert completed("bash", *words) == "letters"
    assert join_broken_words(words, 9)[:2] == ([*words[:7], "model.loss=le"], 7)
    assert join_broken_words(["kovqa", "train", "--data", "=", "x"], 4) == (
        ["kovqa", "train", "--data=x"],
        2,
        0,
    )
    assert join_broken_words(["kovqa", "download", "hf", ":", "a"], 4) == (
        ["kovqa", "download", "hf:a"],
        2,
        3,
    )
    assert join_broken_words(["kovqa", "t"], 1) == (["kovqa", "t"], 1, 0)


def test_the_other_shells_show_what_a_key_means() -> None:
    line = ("kovqa", "train", "-r", "tiny-vlm", "--set")
    assert (
        completed("fish", *line, "model.lora.rank=64")
        == "model.lora.rank=64\trank of the updates, and so their size"
    )
    assert "model.lora.alpha=16:::업데이트의 배율" in completed(
        "powershell", *line, "model.lora.a", KOVQA_LANG="ko"
    )
    shown = completed("zsh", "kovqa", "recipes", "new", "mine", "--from", "nia", "--set", "model.scope=")
    assert '"model.scope=batch":"one sequence an example; \\`batch\\` is' in shown


@pytest.mark.parametrize(
    ("params", "family"),
    [
        ({"recipe": "tiny-vlm"}, "vlm"),
        ({"recipe": None, "source": "nia"}, "fusion"),
        ({"recipe": "tiny-vlm", "sets": ["family=fusion"]}, "fusion"),
        ({}, "beit3"),
        ({"recipe": "mine.yaml"}, "vlm"),
        ({"recipe": "gone.yaml"}, ""),
        ({"recipe": "unheard-of"}, ""),
        ({"resume": True, "output": "run"}, "fusion"),
    ],
)
def test_the_family_is_that_of_the_line(
    params: dict[str, object], family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KOVQA_RECIPE", raising=False)
    Path("mine.yaml").write_text("# family: none\nmodel: {base: x}\nfamily: vlm  # mine\n")
    Path("run").mkdir()
    Path("run/run.yaml").write_text("format: 1\nrecipe:\n  name: x\n  family: fusion\n")
    assert setting_completion._family_on_line(params) == family
