"""Keys and JSON schema of a recipe with the `model:` part of each family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kovqa_core.models import family_part
from kovqa_core.models.config import FamilyConfig
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import MODEL, RECIPE
from kovqa_core.settings.setting_keys import SettingKey, setting_keys


def recipe_setting_keys() -> list[SettingKey]:
    """Keys of recipes of any family; `model` is a family's own."""
    return [key for key in setting_keys(Recipe, renamed=RECIPE) if key.name != "model"]


def model_setting_keys(family: str) -> list[SettingKey]:
    """Keys of `model:` in a family's recipes; raises as `family_part`."""
    config_class: type[FamilyConfig] = family_part(family, "ModelConfig")
    return setting_keys(config_class, ("model",), MODEL.get(family))


def recipe_schema(families: Sequence[str]) -> dict[str, Any]:
    """JSON schema of recipes: which keys `model:` has depends on the family named.

    Args:
        families: names of those that `family` may be; raises as `family_part`.
    """
    schema = Recipe.model_json_schema()
    schema["required"] = [key for key in schema["required"] if key != "name"]  # a file's name is the recipe's
    schema["properties"]["family"]["enum"] = list(families)
    schema["allOf"] = []
    for family in families:
        config_class: type[FamilyConfig] = family_part(family, "ModelConfig")
        own = config_class.model_json_schema(ref_template=f"#/$defs/{family}/$defs/{{model}}")
        schema["$defs"][family] = own
        schema["allOf"].append(
            {
                "if": {"properties": {"family": {"const": family}}},
                "then": {"properties": {"model": {"$ref": f"#/$defs/{family}"}}},
            }
        )
    return schema
