"""The table of model families: name -> where its modules are. Imported only when one is chosen."""

from __future__ import annotations

from dataclasses import dataclass


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
