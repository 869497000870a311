"""Names of profiles and recipes -> their files; a run's settings from files, variables and flags."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kovqa_core.errors import SettingsError, unknown
from kovqa_core.files import make_folder, write_text
from kovqa_core.paths import home, names
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.reading import Document, build, dump, override, parse, read
from kovqa_core.settings.recipe import Recipe

Kind = Literal["profiles", "recipes"]


def locate(kind: Kind, name: str) -> Path:
    """The file of a name; a path (with a slash or .yaml) is taken as it is.

    Raises:
        SettingsError: no such name (the nearest known ones are listed).
    """
    if _is_path(name):
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
    """A settings file as it stands; its stem is its `name`."""
    path = locate(kind, name)
    found = read(path)
    return Document({"name": path.stem, **found.values}, found.origin)


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or "/" in name


def derived_profile(name: str, source: str, sets: Sequence[str]) -> str:
    """The text of a profile that is another one with some keys changed.

    Args:
        name: the new one's, for its heading.
        source: name or path of the one it begins with.
        sets: `a.b=c` texts.
    """
    values = override(read(locate("profiles", source)), sets, "--set").values
    values.pop("name", None)
    stem = Path(name).stem if _is_path(name) else name
    return f"# From {source}.\n# kovqa train --profile {stem}\n{dump(values)}"


def write_profile(name: str, text: str) -> Path:
    """Keep a profile: a name in the user's own folder, a path where it says.

    Raises:
        SettingsError: there is one already, or the text is none.
    """
    path = locate("profiles", name) if _is_path(name) else home() / "profiles" / f"{name}.yaml"
    found = parse(text, str(path))
    build(Profile, Document({"name": path.stem, **found.values}, found.origin))
    if path.exists():
        raise SettingsError(f"{path} is there already", "choose another name, or remove it")
    make_folder(path.parent)
    write_text(path, text)
    return path


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
        texts["profile"] = override(texts["profile"], of_profile, origin)
        texts["recipe"] = override(texts["recipe"], of_recipe, origin)
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
