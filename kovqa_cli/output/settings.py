"""What `kovqa profiles` and `kovqa recipes` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kovqa_core.messages import message, shell_quote
from kovqa_core.messages.languages import shown_language

from kovqa_cli.output import console
from kovqa_cli.output.table import print_table

if TYPE_CHECKING:
    from kovqa_core.settings.profile import Profile
    from kovqa_core.settings.recipe import Recipe

_KOREAN_WORDS = "# ko: "
SettingsName = Literal["profile", "recipe"]


def print_profiles(profiles: Sequence[Profile], this_machine: str, *, as_json: bool, quiet: bool) -> None:
    """All profiles, and which one fits this machine."""
    if as_json:
        rows = [profile.model_dump(mode="json") for profile in profiles]
        console.print_json({"profiles": rows, "this_machine": this_machine})
    elif quiet:
        console.print_result(*(profile.name for profile in profiles))
    else:
        print_table(
            [(message("settings.column-name", "name"), "left"), ("GPU", "left"),
             (message("settings.column-processes", "nodes × processes"), "right"),
             (message("settings.column-launcher", "launcher"), "left", 1),
             (message("settings.column-precision", "precision"), "left", 2), ("", "left")],
            [
                [profile.name, _gpu_text(profile),
                 f"{profile.nodes} × {profile.processes_per_node}", profile.launcher, profile.precision,
                 message("settings.this-machine", "this machine") if profile.name == this_machine else ""]
                for profile in profiles
            ],
        )  # fmt: skip


def _gpu_text(profile: Profile) -> str:
    memory = f"{profile.gpu_memory_gb} GB" if profile.gpu_memory_gb else ""
    return f"{profile.gpu} {memory}".strip() or "-"


def print_recipes(recipes: Mapping[str, tuple[Recipe, str]], *, as_json: bool, quiet: bool) -> None:
    """All recipes.

    Args:
        recipes: name -> the recipe, and the text of its file, whose first line says what it is.
    """
    if as_json:
        console.print_json({"recipes": [recipe.model_dump(mode="json") for recipe, _ in recipes.values()]})
    elif quiet:
        console.print_result(*recipes)
    else:
        print_table(
            [(message("settings.column-name", "name"), "left"), (message("settings.column-family", "family"), "left", 1),
             (message("settings.column-task", "task"), "left", 3), (message("settings.column-batch", "batch"), "right", 2),
             (message("settings.column-what", "what"), "text")],
            [
                [name, recipe.family, recipe.task, str(recipe.optim.global_batch), _recipe_words(text)]
                for name, (recipe, text) in recipes.items()
            ],
        )  # fmt: skip


def _recipe_words(text: str) -> str:
    """What a recipe's first line says; in Korean the second, where that is the same in Korean."""
    first, *others = text.splitlines()[:2]
    if shown_language() == "ko" and others and others[0].startswith(_KOREAN_WORDS):
        return others[0].removeprefix(_KOREAN_WORDS)
    return first.lstrip("# ")


def print_settings(name: SettingsName, settings: Profile | Recipe, path: Path, *, as_json: bool) -> None:
    """One profile or recipe: its file as it stands, or its values with every default."""
    from kovqa_core.files import read_text

    if as_json:
        console.print_json({name: settings.model_dump(mode="json"), "path": str(path)})
    else:
        console.print_result(*read_text(path).rstrip().replace("\r\n", "\n").split("\n"))


def print_schema(schema: Mapping[str, Any], *, as_json: bool) -> None:
    """A JSON schema: for a file of an editor, or in one line as every command's JSON."""
    import json

    if as_json:
        console.print_json(schema)
    else:
        console.print_result(*json.dumps(schema, ensure_ascii=False, indent=1).splitlines())


def print_new_settings(name: SettingsName, path: Path, *, as_json: bool, quiet: bool) -> None:
    """A profile or recipe that was written, and how to use it."""
    from kovqa_core.paths import settings_files

    option = path.stem if settings_files(f"{name}s").get(path.stem) == path else str(path)
    note = message(
        "settings.next",
        "next: kovqa train --{name} {option} --dry-run",
        name=name,
        option=shell_quote(option),
    )
    console.print_outcome(
        str(path), {"path": str(path), "name": option}, [note], as_json=as_json, quiet=quiet
    )
