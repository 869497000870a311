"""The table of model families: name -> where its modules are. Imported only when one is chosen.

Families of plug-ins (`plugins.py`) join it by their names; those of the table win.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kovqa_core.errors import unknown_name_error
from kovqa_core.messages import message
from kovqa_core.plugins import Plugin, find_plugin, import_of_plugin, plugin_names, require_attributes


@dataclass(frozen=True)
class FamilyModules:
    """Names of the three modules of a family; they may be one.

    Attributes:
        config: has `ModelConfig`, a `models.config.FamilyConfig`. Planning loads it: no torch.
        memory: has `COUNT_STEP_MEMORY`, a `models.memory.CountStepMemory`. Planning loads it: no torch.
        family: has `FAMILY`, a `models.family.ModelFamily`.
    """

    config: str
    memory: str
    family: str


def modules_of_package(package: str) -> FamilyModules:
    """The modules of a family that has a package of its own."""
    return FamilyModules(f"{package}.config", f"{package}.memory", f"{package}.family")


FAMILIES: dict[str, FamilyModules] = {
    "beit3": modules_of_package("kovqa_core.models.beit3"),
    "fusion": modules_of_package("kovqa_core.models.fusion"),
    "vlm": modules_of_package("kovqa_core.models.vlm"),
}
HF_FOLDER_FAMILY = "vlm"  # takes a Hugging Face folder as it is
# What is looked up in a family's modules, and in which.
FAMILY_PARTS: Mapping[str, str] = {"ModelConfig": "config", "COUNT_STEP_MEMORY": "memory", "FAMILY": "family"}


def family_names() -> list[str]:
    """Names of all families that are here."""
    return [*FAMILIES, *plugin_names("family", FAMILIES)]


def family_part(family: str, name: str) -> Any:
    """What a family's modules have under a name: `ModelConfig`, `COUNT_STEP_MEMORY` or `FAMILY`.

    Raises:
        SettingsError: there is no such family; names the nearest.
        MachineError: the plug-in that brings it does not work.
    """
    part = FAMILY_PARTS[name]
    if family in FAMILIES:
        return getattr(importlib.import_module(getattr(FAMILIES[family], part)), name)
    plugin = find_plugin("family", family)
    if plugin is None:
        raise unknown_name_error(
            message("models.unknown-family", "unknown model family '{family}'", family=family),
            family,
            family_names(),
        )
    module = import_of_plugin(plugin, getattr(_modules_of_plugin(plugin), part))
    require_attributes(plugin, module, [name])
    return getattr(module, name)


def _modules_of_plugin(plugin: Plugin) -> FamilyModules:
    """Of a package its modules config, memory and family; a module has all three names itself."""
    package = import_of_plugin(plugin, plugin.module)
    if hasattr(package, "__path__") and importlib.util.find_spec(f"{plugin.module}.family") is not None:
        return modules_of_package(plugin.module)
    return FamilyModules(plugin.module, plugin.module, plugin.module)
