"""Names of profiles and recipes -> their files; a run's settings from files, variables and flags."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.errors import unknown
from kovqa_core.paths import names
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import Kind, override_settings, rename_keys
from kovqa_core.settings.strict_yaml import Document, build, read


def is_path(name: str) -> bool:
    """Is this a path (with a slash or .yaml) and no name?"""
    return name.endswith((".yaml", ".yml")) or "/" in name


def locate(kind: Kind, name: str) -> Path:
    """The file of a name; a path (with a slash or .yaml) is taken as it is.

    Raises:
        SettingsError: no such name (the nearest known ones are listed).
    """
    if is_path(name):
        return Path(name).expanduser()
    known = names(kind)
    if name not in known:
        raise unknown(kind.removesuffix("s"), name, known, f"list them: kovqa {kind}")
    return known[name]


def load_profile(name: str) -> Profile:
    """The profile of a name or path."""
    return build(Profile, document("profiles", name))


def load_recipe(name: str) -> Recipe:
    """The recipe of a name or path."""
    return build(Recipe, document("recipes", name))


def document(kind: Kind, name: str) -> Document:
    """A settings file, its keys by the names of today; its stem is its `name`."""
    path = locate(kind, name)
    found = read(path)
    return rename_keys(kind, Document({"name": path.stem, **found.values}, found.origin))


# -------------------------------------------------------------------- files, variables, flags


@dataclass(frozen=True)
class Asked:
    """Both documents of a run, resolved, and where each value came from."""

    recipe: Recipe
    profile: Profile
    origin: dict[str, str]


def resolve(
    recipe: str,
    profile: str,
    sets: Sequence[str] = (),
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Asked:
    """Settings of a run: files < KOVQA_* variables < --set < explicit flags.

    Args:
        recipe: name or path.
        profile: name or path.
        sets: `a.b=c` texts; keys under `profile.` change the profile, all others the recipe.
        flags: explicit flags, as key -> text, like {"data.index": "data/aihub"}.
        environ: variables; `KOVQA_OPTIM__LR=1e-5` means `optim.lr=1e-5`.
    """
    flags = flags or {}
    texts = {"recipe": document("recipes", recipe), "profile": document("profiles", profile)}
    layers = [
        ("variable", variables(environ or {})),
        ("--set", list(sets)),
        ("flag", [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in flags.items()]),
    ]
    for origin, assignments in layers:
        of_profile = [a.removeprefix("profile.") for a in assignments if a.startswith("profile.")]
        of_recipe = [a for a in assignments if not a.startswith("profile.")]
        texts["profile"] = override_settings("profiles", texts["profile"], of_profile, origin, "profile.")
        texts["recipe"] = override_settings("recipes", texts["recipe"], of_recipe, origin)
    return Asked(
        build(Recipe, texts["recipe"]),
        build(Profile, texts["profile"]),
        {
            f"{kind}.{'.'.join(map(str, path))}": place
            for kind, text in texts.items()
            for path, place in text.origin.items()
            if path
        },
    )


def variables(environ: Mapping[str, str]) -> list[str]:
    """`KOVQA_A__B=c` variables as `a.b=c` texts."""
    return [
        f"{name.removeprefix('KOVQA_').replace('__', '.').lower()}={value}"
        for name, value in sorted(environ.items())
        if name.startswith("KOVQA_") and "__" in name
    ]
