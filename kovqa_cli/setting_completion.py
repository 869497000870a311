"""What completion offers behind `--set`: keys and their values. Reads one table and the named recipe's family, no more.

The table is made of the settings' models by `tools/settings_reference.py`: Tab must not wait for them and for YAML.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

_TABLE = Path(__file__).with_name("setting_keys.tsv")
_FAMILY = re.compile(r"^\s*(?:recipe:\s*\{\s*|\{\s*)?family\s*:\s*[\"']?([\w-]+)", re.MULTILINE)
_MAX_CHARS = 1 << 18  # of a recipe's file, as settings/strict_yaml.py reads it


@dataclass(frozen=True)
class KeyLine:
    """A line of the table: a key as it is typed, and what is known of its values."""

    part: str
    key: str
    choices: tuple[str, ...]
    default: str
    example: str
    meaning: str


def setting_completions(lines: list[KeyLine], incomplete: str) -> list[tuple[str, str]]:
    """Completions of a word, of these keys.

    A key that is known for certain comes with values: the usual one and an example where any would do, so that a shell
    writes `key=` and no space behind it.
    """
    key, sign, _ = incomplete.partition("=")
    if sign:
        named = [line for line in lines if line.key == key]
    else:
        named = [line for line in lines if line.key.startswith(incomplete)]
        if len(named) != 1:
            return [(f"{line.key}=", line.meaning) for line in named]
    return [
        (f"{line.key}={value}", line.meaning)
        for line in named
        for value in dict.fromkeys(_values(line))
        if f"{line.key}={value}".startswith(incomplete)
    ]


def _values(line: KeyLine) -> Iterator[str]:
    if line.choices:
        yield from line.choices
        return
    # What a shell would take apart is left to be typed, and `""` is no value to begin with.
    known = [
        value for value in (line.default, line.example) if value and not re.search(r"[\s\"'{}<>…]", value)
    ]
    yield from known if len(known) > 1 else ["", *known]


def settings_of_command(context: typer.Context) -> list[KeyLine]:
    """Keys that this command takes: `profiles new` those of profiles, `import` those of models, and so on."""
    group = (context.command_path.split()[1:] or [""])[0]
    lines = read_key_lines()
    if group == "profiles":
        return [
            replace(line, key=line.key.removeprefix("profile.")) for line in lines if line.part == "profile"
        ]
    if group == "import":  # whose family is that of the weights
        return list({line.key: line for line in lines if line.key.startswith("model.")}.values())
    parts = {"recipe", _family_on_line(context.params), *([] if group == "recipes" else ["profile"])}
    return [line for line in lines if line.part in parts]


def read_key_lines() -> list[KeyLine]:
    """The table, its meanings in the user's language."""
    from kovqa_core.messages.languages import user_language

    heading, *rows = _TABLE.read_text("utf-8").splitlines()
    meaning = heading.split("\t").index(user_language())
    lines = []
    for row in rows:
        cells = row.split("\t")
        part, key, choices, default, example = cells[:5]
        values = tuple(choices.split(",")) if choices else ()
        lines.append(KeyLine(part, key, values, default, example, cells[meaning]))
    return lines


# ------------------------------------------------------------------------- the recipe's family


def _family_on_line(params: dict[str, Any]) -> str:
    """Family of the model that the command line is about; "": nothing says it."""
    for text in reversed(params.get("sets") or []):
        key, _, value = str(text).partition("=")
        if key == "family":
            return value
    if params.get("resume") and params.get("output"):
        return _family_of_file(Path(params["output"]) / "run.yaml")
    recipe = params.get("recipe") or params.get("source") or os.environ.get("KOVQA_RECIPE") or "kobeit3"
    return _family_of_recipe(str(recipe))


def _family_of_recipe(name: str) -> str:
    from kovqa_core.paths import settings_files

    if "/" in name or name.endswith((".yaml", ".yml")):
        return _family_of_file(Path(name).expanduser())
    path = settings_files("recipes").get(name)
    return _family_of_file(path) if path else ""


def _family_of_file(path: Path) -> str:
    """By the line `family: NAME`: reading all of the YAML would take longer than a Tab may."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = _FAMILY.search(file.read(_MAX_CHARS))
    except OSError:
        return ""
    return found[1] if found else ""
