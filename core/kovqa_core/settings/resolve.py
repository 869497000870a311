"""Names of profiles and recipes -> their files; a run's settings from files, variables and flags."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.errors import unknown_name_error
from kovqa_core.messages import message
from kovqa_core.paths import settings_files
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import Kind, override_settings, rename_keys
from kovqa_core.settings.strict_yaml import SettingsDocument, build_settings, read_yaml

DEFAULT_RECIPE = "kobeit3"  # of `kovqa train`


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
    """Both documents of a run, resolved, and where each value came from."""

    recipe: Recipe
    profile: Profile
    origin: dict[str, str]


def resolve_settings(
    recipe: str,
    profile: str,
    sets: Sequence[str] = (),
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> ResolvedSettings:
    """Settings of a run: files < KOVQA_* variables < --set < explicit flags.

    Args:
        recipe: name or path.
        profile: name or path.
        sets: `a.b=c` texts; keys under `profile.` change the profile, all others the recipe.
        flags: explicit flags, as key -> text, like {"data.index": "data/aihub"}.
        environ: variables; `KOVQA_OPTIM__LR=1e-5` means `optim.lr=1e-5`.

    Raises:
        SettingsError: an unknown name or key, a wrong value, a contradiction; says where it was written.
    """
    flags = flags or {}
    documents = {"recipe": load_document("recipes", recipe), "profile": load_document("profiles", profile)}
    # Later ones win. A flag's value is quoted as JSON, which is YAML too: a folder called 1.0 or null stays text.
    layers = [
        ("variable", environment_overrides(environ or {})),
        ("--set", list(sets)),
        ("flag", [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in flags.items()]),
    ]
    for origin, assignments in layers:
        of_profile = [a.removeprefix("profile.") for a in assignments if a.startswith("profile.")]
        of_recipe = [a for a in assignments if not a.startswith("profile.")]
        documents["profile"] = override_settings(
            "profiles", documents["profile"], of_profile, origin, "profile."
        )
        documents["recipe"] = override_settings("recipes", documents["recipe"], of_recipe, origin)
    return ResolvedSettings(
        build_settings(Recipe, documents["recipe"]),
        build_settings(Profile, documents["profile"]),
        {
            f"{kind}.{'.'.join(map(str, path))}": place
            for kind, document in documents.items()
            for path, place in document.origin.items()
            if path
        },
    )


def environment_overrides(environ: Mapping[str, str]) -> list[str]:
    """`KOVQA_A__B=c` variables as `a.b=c` texts."""
    return [
        f"{name.removeprefix('KOVQA_').replace('__', '.').lower()}={value}"
        for name, value in sorted(environ.items())
        if name.startswith("KOVQA_") and "__" in name
    ]
