"""The `model:` part of a recipe and the `config.json` of a checkpoint, whatever the family. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field

from kovqa_core.files import read_text
from kovqa_core.messages import Message
from kovqa_core.models import family_part
from kovqa_core.settings.overrides import with_new_names
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import MODEL
from kovqa_core.settings.strict_yaml import (
    SettingsDocument,
    StrictSettings,
    YamlMapping,
    build_settings,
    parse_yaml,
)

ImageLoading = Literal["as_shown", "as_stored"]


@dataclass(frozen=True)
class PinnedSettings:
    """Settings that a run keeps in place of those that were typed.

    Attributes:
        settings: by their keys: a branch of a repository as the commit that it is at.
        notes: what a person should know of the choice.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[Message] = ()


class FamilyConfig(StrictSettings):
    """Settings of a model; each family's `ModelConfig` adds its own."""

    image_loading: ImageLoading = Field(
        "as_shown",
        description="as_shown: upright by EXIF, over white where transparent; as_stored: neither, as the originals of "
        "BEiT-3, LLaVA and VQA_NIA read images",
    )

    @property
    def load_as_stored(self) -> bool:
        """For `open_image`: are EXIF's orientation and transparency ignored?"""
        return self.image_loading == "as_stored"

    def required_files(self) -> list[Callable[[], object]]:
        """Checks, to be called, that the files this model starts from are here.

        Raises:
            SettingsError: at once, where the settings themselves lack something.
        """
        return []

    def plan_notes(self) -> list[Message]:
        """What is worth knowing of a training of this model before it starts."""
        return []

    def pinned_settings(self) -> PinnedSettings:
        """What these settings mean on this machine today, where a name may mean another thing tomorrow."""
        return PinnedSettings()

    @property
    def prompt_columns(self) -> tuple[str, ...]:
        """What the model reads of a row besides its question: of "context" and "choices"."""
        return ()

    @classmethod
    def own_precision(cls, settings: Mapping[str, object]) -> str:
        """What a model with these settings, unchecked, computes in by itself: bf16, fp16 or fp32."""
        return "fp32"

    @property
    def micro_batch_loss(self) -> str | None:
        """A setting by which the loss depends on a micro-batch as a whole; None: it is a mean, cut anywhere."""
        return None


ConfigType = TypeVar("ConfigType", bound=FamilyConfig)


def read_model_settings(document: SettingsDocument) -> FamilyConfig:
    """The `model:` part of a recipe's document, as its family reads it.

    Raises:
        SettingsError: unknown family, or a wrong key or value; says where it was written.
    """
    config_class: type[FamilyConfig] = family_part(str(document.values["family"]), "ModelConfig")
    with_model = SettingsDocument({"model": {}, **document.values}, document.origin)
    return build_settings(config_class, with_model, ("model",))


def recipe_model_config(recipe: Recipe) -> FamilyConfig:
    """The `model:` part of a recipe, as its family reads it; raises as `read_model_settings`."""
    return read_model_settings(_recipe_document(recipe))


def config_from_recipe(config_class: type[ConfigType], recipe: Recipe) -> ConfigType:
    """The `model:` part of a recipe, as one family reads it.

    Raises:
        SettingsError: a wrong key or value.
    """
    return build_settings(config_class, _recipe_document(recipe), ("model",))


def _recipe_document(recipe: Recipe) -> SettingsDocument:
    values: YamlMapping = {"family": recipe.family, "model": recipe.model}
    return SettingsDocument(values, {(): f"recipe {recipe.name}"})


def read_checkpoint_config(config_class: type[ConfigType], folder: Path, family: str) -> ConfigType:
    """The `config.json` of a checkpoint folder; keys by their old names are read without a warning.

    Raises:
        DataError: it is missing.
        SettingsError: it is not JSON, or has a wrong key or value.
    """
    file = folder / "config.json"
    document = parse_yaml(read_text(file), str(file))
    return build_settings(config_class, with_new_names(document, MODEL.get(family, {}), warn=False))
