"""Keys and JSON schema of a recipe with the `model:` part of each family."""

from __future__ import annotations

import importlib
from typing import Any

from kovqa_core.models.config import FamilyConfig, family_modules
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import MODEL, RECIPE
from kovqa_core.settings.setting_keys import SettingKey, setting_keys


def family_config_class(family: str) -> type[FamilyConfig]:
    """The class that reads `model:` of a family's recipes; raises as `family_modules`."""
    config_class: type[FamilyConfig] = importlib.import_module(family_modules(family).config).ModelConfig
    return config_class


def recipe_setting_keys() -> list[SettingKey]:
    """Keys of recipes of any family; `model` is a family's own."""
    return [key for key in setting_keys(Recipe, renamed=RECIPE) if key.name != "model"]


def model_setting_keys(family: str) -> list[SettingKey]:
    """Keys of `model:` in a family's recipes; raises as `family_modules`."""
    return setting_keys(family_config_class(family), ("model",), MODEL.get(family))


def recipe_schema(families: list[str]) -> dict[str, Any]:
    """JSON schema of recipes: which keys `model:` has depends on the family named.

    Args:
        families: names of those that `family` may be.
    """
    schema = Recipe.model_json_schema()
    schema["required"] = [key for key in schema["required"] if key != "name"]  # a file's name is the recipe's
    schema["properties"]["family"]["enum"] = families
    schema["allOf"] = []
    for family in families:
        own = family_config_class(family).model_json_schema(ref_template=f"#/$defs/{family}/$defs/{{model}}")
        schema["$defs"][family] = own
        schema["allOf"].append(
            {
                "if": {"properties": {"family": {"const": family}}},
                "then": {"properties": {"model": {"$ref": f"#/$defs/{family}"}}},
            }
        )
    return schema
