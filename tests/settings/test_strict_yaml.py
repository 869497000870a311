"""YAML text -> settings: values as people mean them, mistakes with their place."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.settings.overrides import apply_overrides
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.strict_yaml import build_settings, dump_yaml, parse_yaml, read_yaml

RECIPE = """\
name: mine
family: beit3
optim:
  steps: 10
  global_batch: 8
  lr: 2e-5
"""


def value(text: str) -> Any:
    return parse_yaml(f"key: {text}", "x.yaml").values["key"]


def refused(text: str, kind: type[Recipe] | type[Profile] = Recipe) -> str:
    """The message a settings text is refused with."""
    with pytest.raises(SettingsError) as caught:
        build_settings(kind, parse_yaml(text, "x.yaml"))
    return caught.value.message


# ---------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2e-5", 2e-5),
        ("1E+3", 1000.0),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("7", 7),
        ("-7", -7),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_numbers_and_constants(text: str, expected: Any) -> None:
    assert value(text) == expected
    assert type(value(text)) is type(expected)


@pytest.mark.parametrize(
    "text", ["24:00:00", "no", "on", "yes", "off", "Y", "0x10", "1_000", "2024-01-01", "예", "1e", "e5", "."]
)
def test_what_looks_like_text_is_text(text: str) -> None:
    assert value(text) == text


def test_a_quoted_number_is_text() -> None:
    assert value("'2e-5'") == "2e-5"


def test_lists_and_mappings() -> None:
    assert parse_yaml("a: [1, two, 3.0]\nb:\n  c: {d: no}", "x").values == {
        "a": [1, "two", 3.0],
        "b": {"c": {"d": "no"}},
    }


def test_a_key_may_be_on() -> None:
    assert parse_yaml("on: 1", "x").values == {"on": 1}


# --------------------------------------------------------------------- mistakes, with place


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "x.yaml:3:1: key 'a' appears twice"),
        ("a: {b: 1, b: 2}", "x.yaml:1:11: key 'b' appears twice"),
        ("a: 1\n2: b", "x.yaml:2:1: a key must be text"),
        ("a: [1\n", "x.yaml:2:1: not valid YAML"),
        ("a: 1\n\tb: 2", "x.yaml:2:1: not valid YAML"),
        ("a: 1\n---\nb: 2", "x.yaml:2:1: not valid YAML"),
        ("- 1", "x.yaml: expected `key: value` lines"),
        ("", "x.yaml: expected `key: value` lines"),
    ],
)
def test_text_that_is_no_settings_file(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_yaml(text, "x.yaml")
    assert caught.value.message.startswith(message)


ALIASED = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ALIASED, "x.yaml:2:8: aliases (*a) are not read: write the value out"),
        ("base: &base {lr: 1}\noptim:\n  <<: *base\n", "x.yaml:3:7: aliases (*base) are not read: write the value out"),
        ("a: &x [*x]", "x.yaml:1:8: aliases (*x) are not read: write the value out"),
        ("a: " + "[" * 100, "x.yaml:1:67: nested too deeply, more than 64 levels"),
        ("a: " + "{b: " * 100, "x.yaml:1:253: nested too deeply, more than 64 levels"),
        ("- " * 100, "x.yaml:1:129: nested too deeply, more than 64 levels"),
        ("? " * 100, "x.yaml:1:129: nested too deeply, more than 64 levels"),
        ("a: [" + "1," * 100_000 + "]", "x.yaml:1:39999: more than 20,000 values"),
        ("a: " + "x" * 300_000, "x.yaml: 300,003 characters, more than the 262,144 that settings may have"),
        ("a: 1\nb: !!set {x, y}", "x.yaml:2:4: unknown tag tag:yaml.org,2002:set: leave it out"),
        ("a: !!python/object/apply:os.getcwd []", "x.yaml:1:4: unknown tag tag:yaml.org,2002:python/object/apply:os.getcwd: "
         "leave it out"),
        ("a: !mine {b: 1}", "x.yaml:1:4: unknown tag !mine: leave it out"),
        ("a: !!int 1:30", "x.yaml:1:4: '1:30' is not of the type int"),
        ("a: " + "9" * 309, f"x.yaml:1:4: '{'9' * 309}' is not of the type int"),
        ("a: 1\n---\nb: 2", "x.yaml:2:1: not valid YAML (but found another document)"),
    ],
    ids=range(15),
)  # fmt: skip
def test_what_would_grow_without_end_is_refused_at_once(text: str, says: str) -> None:
    began = time.process_time()
    with pytest.raises(SettingsError) as caught:
        parse_yaml(text, "x.yaml")
    assert caught.value.message == says
    assert time.process_time() - began < 3


def test_an_assignment_has_the_same_bounds() -> None:
    for text in ("optim={a: &a [1], b: *a}", "optim=" + "[" * 5000, "optim=" + "1" * 300_000):
        with pytest.raises(
            SettingsError, match=r"--set optim=.*(aliases|nested too deeply|characters, more)"
        ):
            apply_overrides(parse_yaml(RECIPE, "x.yaml"), [text], "--set")


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(RECIPE)
    os.truncate(tmp_path / "x.yaml", 1 << 40)
    with pytest.raises(DataError, match=r"x\.yaml has 1,099,511,627,776 bytes"):
        read_yaml(tmp_path / "x.yaml")


def test_an_anchor_alone_is_harmless_and_what_two_keys_share_is_written_twice() -> None:
    assert value("&x 1") == 1
    shared = [1, 2]
    text = dump_yaml({"a": shared, "b": shared})
    assert "&" not in text
    assert parse_yaml(text, "x.yaml").values == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("text", ["a: \x07", "a: !foo bar", "a: !!int abc", "a: !!float x", "a: &x [*x]"])
def test_yaml_that_settings_have_no_use_for_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^x\.yaml"):
        parse_yaml(text, "x.yaml")


def test_an_unknown_key_names_the_nearest() -> None:
    message = refused(RECIPE + "sed: 7\n")
    assert message.startswith("x.yaml:7:1: unknown key 'sed'; did you mean seed")


def test_an_unknown_key_further_in_names_the_nearest() -> None:
    message = refused(RECIPE + "  layer_deacy: 0.9\n")
    assert message.startswith("x.yaml:7:3: unknown key 'layer_deacy'; did you mean layer_decay")


def test_a_misspelt_required_key_is_called_unknown_not_missing() -> None:
    message = refused(RECIPE.replace("global_batch", "globl_batch"))
    assert message.startswith("x.yaml:5:3: unknown key 'globl_batch'; did you mean global_batch")


def test_a_key_nothing_like_it_lists_what_there_is() -> None:
    message = refused(RECIPE + "zzzz: 1\n")
    assert "known: " in message
    assert "optim" in message


@pytest.mark.parametrize(
    ("wrong", "place", "names"),
    [
        ("  lr: fast\n", "x.yaml:6:3: ", "optim.lr"),
        ("  lr: [1]\n", "x.yaml:6:3: ", "optim.lr"),
        ("  lr: -1\n", "x.yaml:6:3: ", "optim.lr"),
        ("  lr: 1e-3\n  betas: [a, 1]\n", "x.yaml:7:11: ", "optim.betas.0"),
    ],
)
def test_a_wrong_type_is_named_with_line_and_column(wrong: str, place: str, names: str) -> None:
    message = refused(RECIPE.replace("  lr: 2e-5\n", wrong))
    assert message.startswith(place + names)


def test_the_value_given_is_shown() -> None:
    assert "'fast'" in refused(RECIPE.replace("2e-5", "fast"))


def test_all_kinds_of_values_that_a_key_may_have_are_named() -> None:
    assert refused("name: x\ncompile: maybe\n", Profile) == (
        "x.yaml:2:1: compile: Input should be 'auto' or true or false (given: 'maybe')"
    )
    assert "2:1: nodes: Input should be a valid integer or a valid string (given: [1])" in refused(
        "name: x\nnodes: [1]\n", Profile
    )
    assert "micro_batch.a: Input should be a valid integer, unable to parse" in refused(
        "name: x\nmicro_batch: {a: x, b: x}\n", Profile
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu: NVIDIA\nfrom_machine: yes\n", "true or false (given: 'yes')"),
        ("from_machine: true\n", "add gpu: NVIDIA"),
    ],
)
def test_a_profile_that_would_leave_gpus_idle_is_refused(text: str, words: str) -> None:
    assert words in refused(f"name: x\n{text}", Profile)


def test_a_missing_key_is_named_where_it_belongs() -> None:
    assert refused(RECIPE.replace("  lr: 2e-5\n", "")).startswith("x.yaml:3:1: optim.lr: this key is missing")
    assert refused(RECIPE + "  betas: [0.9]\n").endswith("optim.betas: too few values: 1 given")
    assert refused(RECIPE + "  betas: []\n").endswith("optim.betas: too few values: 0 given")
    assert "optim.betas: " in refused(RECIPE + "  betas: [0.9, 0.9, 0.9]\n")
    assert refused(RECIPE + "lr: 1\n").endswith("unknown key 'lr'; did you mean optim.lr?")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("  epochs: 2\n", "either epochs or steps"),
        ("  warmup_steps: 1\n  warmup_epochs: 1\n", "either warmup_epochs or warmup_steps"),
        ("  layer_decay: 0.9\n  head_lr_scale: 20\n", "keep head_lr_scale at 1"),
    ],
)
def test_a_contradiction_is_explained(more: str, expected: str) -> None:
    message = refused(RECIPE + more)
    assert message.startswith("x.yaml:3:1: optim: ")
    assert expected in message


def test_a_profile_that_holds_nothing_is_refused() -> None:
    assert "micro_batch" in refused("name: x\nmicro_batch: {default: 8, mine: 0}\n", Profile)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no such file: .*nothing\.yaml"):
        read_yaml(tmp_path / "nothing.yaml")


def test_settings_cannot_be_changed() -> None:
    recipe = build_settings(Recipe, parse_yaml(RECIPE, "x.yaml"))
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1  # type: ignore[misc]


# -------------------------------------------------------------------------------- overrides


def test_override_replaces_and_adds() -> None:
    before = parse_yaml(RECIPE, "x.yaml")
    after = apply_overrides(
        before, ["optim.lr=1e-3", "model.reinit=[pooler, head]", "data.flip=true"], "--set"
    )
    recipe = build_settings(Recipe, after)
    assert recipe.optim.lr == 1e-3
    assert recipe.model == {"reinit": ["pooler", "head"]}
    assert recipe.data.flip is True
    assert before.values["optim"]["lr"] == 2e-5
    assert "model" not in before.values


def test_the_last_override_wins() -> None:
    after = apply_overrides(parse_yaml(RECIPE, "x"), ["seed=1", "seed=2"], "--set")
    assert build_settings(Recipe, after).seed == 2


def test_an_override_may_contain_an_equals_sign() -> None:
    after = apply_overrides(parse_yaml(RECIPE, "x"), ["data.index=a=b"], "--set")
    assert build_settings(Recipe, after).data.index == "a=b"


def test_a_wrong_override_is_named_as_it_was_typed() -> None:
    after = apply_overrides(parse_yaml(RECIPE, "x.yaml"), ["optim.lr=fast"], "--set")
    with pytest.raises(SettingsError) as caught:
        build_settings(Recipe, after)
    assert caught.value.message.startswith("--set optim.lr=fast: optim.lr: ")


def test_a_wrong_value_inside_an_override_is_not_blamed_on_the_file() -> None:
    document = parse_yaml("name: x\nmicro_batch: {default: 8}\n", "x.yaml")
    after = apply_overrides(document, ["micro_batch={default: many}"], "--set")
    with pytest.raises(SettingsError, match=r"^--set micro_batch=\{default: many\}"):
        build_settings(Profile, after)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("optim.lr", "expected key=value"),
        ("=1", "expected key=value"),
        ("name.x=1", "'name' has no keys below it"),
        ("seed=[1", "not valid YAML"),
    ],
)
def test_an_assignment_that_is_none(assignment: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        apply_overrides(parse_yaml(RECIPE, "x.yaml"), [assignment], "--set")
    assert caught.value.message.startswith("--set")
    assert expected in caught.value.message


# ------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize(
    "text",
    ["no", "on", "2e-5", "24:00:00", "null", "", "~", "true", "012", "1", ".5", "a: b", "#x", "한글 예",
     " lead", "trail ", "two\nlines", "\ttab", "- a", "!x", "&a", "*a", "%", "'", '"', "{", "[", "=", "<<"],
)  # fmt: skip
def test_text_stays_text_through_dump_and_parse(text: str) -> None:
    values = {"key": text, "list": [text], "inner": {text or "empty": 1}}
    assert parse_yaml(dump_yaml(values), "x").values == values


@pytest.mark.parametrize("number", [2e-5, 1e-8, 1.0, 1e16, 1e22, 0.1, 123456789.125, 0, 7, -3, 10**20])
def test_numbers_stay_numbers_through_dump_and_parse(number: float) -> None:
    parsed = parse_yaml(dump_yaml({"key": number}), "x").values["key"]
    assert parsed == number
    assert type(parsed) is type(number)


def test_a_recipe_comes_back_from_its_text() -> None:
    recipe = build_settings(
        Recipe, parse_yaml(RECIPE + "model: {image_size: 64, weights: 한글.pth}\ndata: {flip: true}\n", "x")
    )
    assert build_settings(Recipe, parse_yaml(dump_yaml(recipe), "again")) == recipe


def test_a_profile_comes_back_from_its_text() -> None:
    profile = build_settings(
        Profile, parse_yaml("name: x\nenv: {NCCL_DEBUG: 'on', A: '1'}\nmicro_batch: {'2024': 3}", "x")
    )
    assert build_settings(Profile, parse_yaml(dump_yaml(profile), "again")) == profile
