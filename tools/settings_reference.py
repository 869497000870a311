"""Write what is made of the settings' schemas: the tables of docs/profiles.md and docs/recipes.md, in both languages,
and the table that completes `--set`.

    python tools/settings_reference.py            # writes; tests/settings/test_setting_keys.py sees that all is fresh

The pages' other text is written by hand; the tables stand between two comments.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "core")]

from kovqa_core.evaluate.metrics import METRICS
from kovqa_core.launch.launchers import LAUNCHERS
from kovqa_core.messages.languages import LANGUAGES, translate_help
from kovqa_core.models import FAMILIES
from kovqa_core.models.recipe_keys import model_setting_keys, recipe_setting_keys
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.renamed_keys import PROFILE
from kovqa_core.settings.setting_keys import SettingKey, setting_keys

COMPLETION_TABLE = ROOT / "kovqa_cli" / "setting_keys.tsv"
_TABLES = re.compile(r"(?<=<!-- keys -->\n).*?(?=<!-- end of keys -->)", re.DOTALL)

WORDS = {
    "en": {
        "columns": ("key", "type", "default", "meaning", "example"),
        "required": "required",
        "old": "formerly {names}",
        "top": "## Keys at the top",
        "section": "## Keys of {name}",
        "family": "## Keys of {name} in family {family}",
    },
    "ko": {
        "columns": ("키", "형식", "기본값", "뜻", "예"),
        "required": "필수",
        "old": "예전 이름 {names}",
        "top": "## 맨 위의 키",
        "section": "## {name}의 키",
        "family": "## {family} 계열의 {name} 키",
    },
}


def profile_keys(*prefix: str) -> list[SettingKey]:
    """Keys of profiles: as a profile's file has them, or below a prefix."""
    return with_names(setting_keys(Profile, prefix, PROFILE))


def with_names(keys: list[SettingKey]) -> list[SettingKey]:
    """Keys, those that take a name of a table with the names: the tables lie above the settings."""
    tables: dict[str, Mapping[str, object]] = {
        "launcher": LAUNCHERS, "profile.launcher": LAUNCHERS, "family": FAMILIES, "eval.metric": METRICS
    }  # fmt: skip
    return [
        replace(key, choices=tuple(tables[key.name]), type=", ".join(tables[key.name]))
        if key.name in tables
        else key
        for key in keys
    ]


def reference_files() -> dict[Path, str]:
    """Every file that is made, with what should stand in it."""
    files = {COMPLETION_TABLE: completion_table()}
    for language in LANGUAGES:
        suffix = "" if language == "en" else f".{language}"
        for name, tables in (("profiles", profile_tables(language)), ("recipes", recipe_tables(language))):
            page = ROOT / "docs" / f"{name}{suffix}.md"
            files[page] = _TABLES.sub(lambda _, text=tables: text, page.read_text("utf-8"))
    return files


def key_meanings() -> set[str]:
    """What every key means, in English: texts for the catalogue of help."""
    keys = [*profile_keys(), *recipe_setting_keys()]
    keys += [key for family in FAMILIES for key in model_setting_keys(family)]
    return {key.meaning for key in keys}


# ------------------------------------------------------------------------------------ pages


def profile_tables(language: str) -> str:
    """All keys of profiles, a table for each part."""
    return "\n".join(_section_tables(profile_keys(), language))


def recipe_tables(language: str) -> str:
    """All keys of recipes, a table for each part; of `model` for each family."""
    tables = list(_section_tables(with_names(recipe_setting_keys()), language))
    for family in FAMILIES:
        heading = WORDS[language]["family"].format(name="`model`", family=f"`{family}`")
        tables.append(f"{heading}\n\n{_key_table(model_setting_keys(family), language)}")
    return "\n".join(tables)


def _section_tables(keys: Sequence[SettingKey], language: str) -> Iterator[str]:
    def section_of(key: SettingKey) -> str:
        return str(key.path[0]) if len(key.path) > 1 else ""

    words = WORDS[language]
    for section, group in groupby(sorted(keys, key=section_of), section_of):  # sorted keeps the order within
        heading = words["section"].format(name=f"`{section}`") if section else words["top"]
        yield f"{heading}\n\n{_key_table(list(group), language)}"


def _key_table(keys: Sequence[SettingKey], language: str) -> str:
    words = WORDS[language]
    rows = [_table_row(words["columns"]), "|---" * len(words["columns"]) + "|\n"]
    for key in keys:
        meaning = translate_help(key.meaning, language)
        if key.old_names:
            names = ", ".join(f"`{name}`" for name in key.old_names)
            meaning += f" ({words['old'].format(names=names)})"
        default = f"`{key.default}`" if key.default else words["required"]
        example = f"`{key.example}`" if key.example else ""
        rows.append(_table_row((f"`{key.name}`", f"`{key.type}`", default, meaning, example)))
    return "".join(rows)


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


# ------------------------------------------------------------------------------- completion


def completion_table() -> str:
    """What `--set` is completed with: part, key, choices, default, example, and the meaning in each language.

    A part is `profile`, `recipe` or a family. Tab reads this instead of the models: neither pydantic nor YAML is loaded.
    """
    parts = {"profile": profile_keys("profile"), "recipe": with_names(recipe_setting_keys())}
    parts |= {family: model_setting_keys(family) for family in FAMILIES}
    lines = [
        "\t".join(
            [part, key.name, ",".join(key.choices), key.default, key.example,
             *(translate_help(key.meaning, language) for language in LANGUAGES)]
        )
        for part, keys in parts.items()
        for key in keys
    ]  # fmt: skip
    return "\n".join(["\t".join(["part", "key", "choices", "default", "example", *LANGUAGES]), *lines, ""])


def main() -> None:
    """Write what is not as it should be, and say so."""
    for path, text in reference_files().items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
