"""Names of profiles and recipes -> their files; a run's settings from files, variables and flags."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.errors import SettingsError, unknown_name_error
from kovqa_core.messages import message
from kovqa_core.paths import settings_files
from kovqa_core.settings.alternative_keys import ReplacedSetting, replace_alternatives
from kovqa_core.settings.code_consent import TRUST_FLAG, TRUST_SETTING
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import Kind, override_settings, rename_keys
from kovqa_core.settings.strict_yaml import SettingsDocument, build_settings, read_yaml

DEFAULT_RECIPE = "kobeit3"  # of `kovqa train`
FlagValue = str | bool
# Key of a recipe -> the flag of `kovqa train` that sets it, and the variable that stands for the flag.
_FLAGS = {
    "data.index": ("--data", "KOVQA_DATA"),
    "model.tokenizer": ("--tokenizer", "KOVQA_TOKENIZER"),
    "model.random_init": ("--random-init", ""),
    TRUST_SETTING: (TRUST_FLAG, ""),
}


def is_settings_path(name: str) -> bool:
    """Is this a path (with a slash or .yaml) and not a name?"""
    return name.endswith((".yaml", ".yml")) or "/" in name


def find_settings(kind: Kind, name: str) -> Path:
    """The file of a name; a path (with a slash or .yaml) is taken as it is.

    Raises:
        SettingsError: no such name (the nearest known ones are listed).
    """
    if is_settings_path(name):
        return Path(name).expanduser()
    files = settings_files(kind)
    if name not in files:
        problem = (
            message("settings.unknown-recipe", "unknown recipe '{name}'", name=name)
            if kind == "recipes"
            else message("settings.unknown-profile", "unknown profile '{name}'", name=name)
        )
        hint = message("settings.unknown-name.hint", "list them: kovqa {command}", command=kind)
        raise unknown_name_error(problem, name, files, hint)
    return files[name]


def load_profile(name: str) -> Profile:
    """The profile of a name or path."""
    return build_settings(Profile, load_document("profiles", name))


def load_recipe(name: str) -> Recipe:
    """The recipe of a name or path."""
    return build_settings(Recipe, load_document("recipes", name))


def load_document(kind: Kind, name: str) -> SettingsDocument:
    """A settings file, its keys by the names of today; its stem is its `name`."""
    path = find_settings(kind, name)
    document = read_yaml(path)
    return rename_keys(kind, SettingsDocument({"name": path.stem, **document.values}, document.origin))


# -------------------------------------------------------------------- files, variables, flags


@dataclass(frozen=True)
class ResolvedSettings:
    """Both documents of a run, resolved, and where each value came from.

    Attributes:
        replaced: settings that were put aside by their other unit, like a recipe's steps by `--set optim.epochs=3`.
    """

    recipe: Recipe
    profile: Profile
    origin: dict[str, str]
    replaced: Sequence[ReplacedSetting] = ()


def resolve_settings(
    recipe: str,
    profile: str,
    sets: Sequence[str] = (),
    flags: Mapping[str, FlagValue] | None = None,
    environ: Mapping[str, str] | None = None,
) -> ResolvedSettings:
    """Settings of a run: files < KOVQA_* variables < --set < explicit flags.

    Args:
        recipe: name or path.
        profile: name or path.
        sets: `a.b=c` texts; keys under `profile.` change the profile, all others the recipe.
        flags: explicit flags, as key -> value, like {"data.index": "data/aihub"}.
        environ: variables; `KOVQA_OPTIM__LR=1e-5` means `optim.lr=1e-5`.

    Raises:
        SettingsError: an unknown name or key, a wrong value, a contradiction; says where it was written.
    """
    documents = load_document("recipes", recipe), load_document("profiles", profile)
    return override_documents(*documents, sets, flags or {}, environ or {})


def _require_no_machine(assignments: Mapping[str, str]) -> None:
    """`from_machine` is asked of a profile's file, before anything is put over it: later it would have no effect."""
    for assignment, place in assignments.items():
        if assignment.partition("=")[0].strip() == "from_machine":
            raise SettingsError(
                message(
                    "settings.from-machine-in-file",
                    "{place}: from_machine counts in a profile's file alone",
                    place=place,
                ),
                message(
                    "settings.from-machine-in-file.hint",
                    "-p nvidia is one that is filled in from this machine",
                ),
            )


def override_documents(
    recipe: SettingsDocument,
    profile: SettingsDocument,
    sets: Sequence[str],
    flags: Mapping[str, FlagValue],
    environ: Mapping[str, str],
    grid: Sequence[str] = (),
) -> ResolvedSettings:
    """Both documents, with variables, `--set` and flags on top; see `resolve_settings`.

    Args:
        grid: `a.b=c` texts of a sweep's grid, over those of `--set`: they are named as what they are.
    """
    # Later ones win: of a text that was typed twice, the last. Each stands beside what was typed.
    layers = [
        environment_overrides(environ),
        {text: f"--set {text}" for text in list(dict.fromkeys(reversed(sets)))[::-1]},
        {text: f"--grid {text}" for text in grid},
        {_flag_assignment(key, value): _flag_place(key, value, environ) for key, value in flags.items()},
    ]
    replaced: list[ReplacedSetting] = []
    for layer in layers:
        of_profile = {a.removeprefix("profile."): at for a, at in layer.items() if a.startswith("profile.")}
        of_recipe = {a: at for a, at in layer.items() if not a.startswith("profile.")}
        _require_no_machine(of_profile)
        profile = override_settings("profiles", profile, of_profile, of_profile, "profile.")
        recipe = override_settings("recipes", recipe, of_recipe, of_recipe)
        recipe, replaced_here = replace_alternatives(recipe, set(of_recipe.values()))
        replaced += replaced_here
    return ResolvedSettings(
        build_settings(Recipe, recipe),
        build_settings(Profile, profile),
        {
            f"{kind}.{'.'.join(map(str, path))}": place
            for kind, document in (("recipe", recipe), ("profile", profile))
            for path, place in document.origin.items()
            if path
        },
        replaced,
    )


def _flag_assignment(key: str, value: FlagValue) -> str:
    # Quoted as JSON, which is YAML too: a folder called 1.0 or null stays text.
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _flag_place(key: str, value: FlagValue, environ: Mapping[str, str]) -> str:
    """What was typed: the flag, or the variable that stands for it."""
    flag, variable = _FLAGS.get(key, (f"flag {key}", ""))
    if variable and environ.get(variable) == value:
        return f"{variable}={value}"
    return flag if value is True else f"{flag} {value}"


def environment_overrides(environ: Mapping[str, str]) -> dict[str, str]:
    """`KOVQA_A__B=c` variables as `a.b=c` texts, each with what stands in the environment."""
    return {
        f"{name.removeprefix('KOVQA_').replace('__', '.').lower()}={value}": f"{name}={value}"
        for name, value in sorted(environ.items())
        if name.startswith("KOVQA_") and "__" in name
    }


def is_typed(place: str) -> bool:
    """Was a setting with this origin typed (a flag, a variable), and does not stand in a file?"""
    return place.startswith(("-", "KOVQA_", "variable ", "flag "))  # the last two: by earlier versions
