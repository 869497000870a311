"""Which base model, what of it learns, how a question is put to it. Imports nothing heavy.

Source: docs/sources/llava.md, L19, L33 and L36.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from kovqa_core.data.question_prompts import DEFAULT_INSTRUCTION, DEFAULT_MAX_NEW_TOKENS
from kovqa_core.download.find_asset import find_asset
from kovqa_core.download.hub_copies import find_hub_copy, hub_name_of_path, parse_hub_name
from kovqa_core.errors import AssetError, ModelError, SettingsError
from kovqa_core.messages import Message, message
from kovqa_core.models.config import FamilyConfig, PinnedSettings
from kovqa_core.models.vlm.lora_settings import LoraSettings
from kovqa_core.runs.folder import find_model_folder, is_huggingface_folder
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.strict_yaml import StrictSettings

TuningMode = Literal["none", "lora", "full"]

# A name for a way of tuning -> that of vision, projector and language.
TUNING_PRESETS: dict[str, tuple[str, str, str]] = {
    "none": ("none", "none", "none"),
    "projector": ("none", "full", "none"),
    "lora": ("none", "none", "lora"),
    "qlora": ("none", "none", "qlora"),
    "full": ("full", "full", "full"),
}

# The settings that a Hugging Face folder of ours keeps in a `kovqa.json` beside it: how a question is put. No
# more: such a folder may come from anybody, and must not decide that its code is run.
PROMPT_SETTINGS = ("instruction", "choices", "max_new_tokens", "max_pixels", "image_loading", "dtype")


class TuningSettings(StrictSettings):
    """How each component learns."""

    vision: TuningMode = Field("none", description="how the image encoder learns")
    projector: TuningMode = Field("none", description="how the projector learns")
    language: Literal["none", "lora", "qlora", "full"] = Field(
        "none", description="how the language model learns; qlora: lora, with its weights in 4 bits"
    )

    @property
    def components(self) -> dict[str, str]:
        """Component -> none, lora or full; a quantised model learns through LoRA."""
        return {name: "lora" if mode == "qlora" else mode for name, mode in self.model_dump().items()}


class ModelConfig(FamilyConfig):
    """The `model:` section of a recipe, and `config.json` of a checkpoint."""

    base: str | None = Field(
        None,
        description="folder of a Hugging Face model, OWNER/NAME[@REVISION] of the hub, or its name in assets/",
        examples=["Qwen/Qwen3-VL-2B-Instruct"],
    )
    fingerprint: str | None = Field(
        None, description="of the base model; another one is refused", examples=["3d2c…"]
    )
    random_init: bool = Field(
        False, description="no base: a small model with random weights, its tokenizer from the index"
    )
    weights: str | None = Field(
        None, description="run whose trained weights to start from", examples=["runs/first"]
    )
    train: TuningSettings = Field(
        TuningSettings(language="lora"),
        description=f"{', '.join(TUNING_PRESETS)}, or vision, projector and language by themselves",
        examples=["projector"],
        json_schema_extra=lambda schema: schema.update(
            anyOf=[{"enum": list(TUNING_PRESETS)}, {"$ref": schema.pop("$ref")}]
        ),
    )
    tokens: tuple[str, ...] = Field(
        (), description="tokens whose rows of the text table learn, too", examples=[["<image>"]]
    )
    frozen: tuple[str, ...] = Field(
        (),
        description="ends of names of modules that do not learn although their component does",
        examples=[["embed_tokens"]],
    )
    lora: LoraSettings = LoraSettings()
    max_pixels: int = Field(
        1_003_520, ge=1, description="larger images are reduced to this many pixels", examples=[501760]
    )
    max_text: int = Field(
        2048, ge=8, description="most tokens of a training row, its image's included", examples=[1024]
    )
    max_new_tokens: int = Field(
        DEFAULT_MAX_NEW_TOKENS, ge=1, description="most tokens of an answer", examples=[64]
    )
    instruction: str = Field(
        DEFAULT_INSTRUCTION,
        description="line below the question: auto (in its language), ko, en, none, or any text",
        examples=["ko"],
    )
    choices: bool = Field(
        False,
        description="list a row's choices in its prompt and learn the answer's letter, by which it then answers "
        "(as `kovqa predict --choices`)",
    )
    shuffle_choices: bool = Field(
        False, description="training rows list their choices in another order each epoch; with choices: true"
    )
    loss: Literal["rows", "tokens", "letters"] = Field(
        "rows",
        description="mean over rows; or, as in LLaVA, over the answers' tokens; or over rows, of those with choices "
        "the cross-entropy among their letters alone",
    )
    dtype: Literal["bf16", "fp32"] = Field(
        "bf16", description="numbers in which weights that do not learn are held"
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that the base model brings along; never kept"
    )

    @field_validator("train", mode="before")
    @classmethod
    def _expand_preset(cls, value: object) -> object:
        if isinstance(value, str):
            if value not in TUNING_PRESETS:
                raise ValueError(
                    message(
                        "vlm.unknown-preset",
                        "known: {presets}, or vision, projector and language by themselves",
                        presets=", ".join(TUNING_PRESETS),
                    )
                )
            return dict(zip(("vision", "projector", "language"), TUNING_PRESETS[value], strict=True))
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.tokens and self.train.language == "full":
            raise ValueError(
                message(
                    "vlm.tokens-learn-already",
                    "tokens learn with the language model already: leave out tokens",
                )
            )
        if not self.choices and (self.shuffle_choices or self.loss == "letters"):
            raise ValueError(
                message("vlm.settings-of-choices", "shuffle_choices and loss: letters need choices: true")
            )
        if self.lora.changes_base and self.train.language == "qlora":
            raise ValueError(
                message(
                    "vlm.init-changes-base",
                    "lora.init_lora_weights: {init} changes the base's weights, which qlora holds in "
                    "4 bits: use true, gaussian or orthogonal, or train: lora",
                    init=self.lora.init_lora_weights,
                )
            )
        if self.random_init and (
            self.base or self.weights or set(self.train.components.values()) != {"full"}
        ):
            raise ValueError(
                message(
                    "vlm.random-init-alone",
                    "random_init: neither base nor weights, and train: full (see recipe tiny-vlm-scratch)",
                )
            )
        return self

    @classmethod
    def own_precision(cls, settings: Mapping[str, object]) -> str:
        """What does not learn is in `dtype`, and so are the products."""
        return str(settings.get("dtype", cls.model_fields["dtype"].default))

    @property
    def prompt_columns(self) -> tuple[str, ...]:
        """What a prompt shows of a row besides its question."""
        return ("context", "choices") if self.choices else ("context",)

    def required_files(self) -> list[Callable[[], object]]:
        """Checks, to be called, that base and weights are here."""
        if self.random_init:
            return []
        checks: list[Callable[[], object]] = [partial(find_base_model, self.base)]
        if self.weights is not None:
            checks.append(partial(find_model_folder, Path(self.weights), "vqa"))
        return checks

    def pinned_settings(self) -> PinnedSettings:
        """The base with the commit that is here: a branch may go on, and the run is resumed with what it began with."""
        name = parse_hub_name(self.base or "")
        copy = find_hub_copy(name) if name else None
        if copy is None or copy.folder != find_base_model(self.base):  # a folder of that name comes first
            return PinnedSettings()
        return PinnedSettings({"base": copy.name}, [copy.note] if copy.note else [])


def refuse_unsupported(recipe: Recipe) -> None:
    """Refuse settings of other families, which this one would ignore in silence.

    Raises:
        SettingsError: there is one.
    """
    data, optim = recipe.data, recipe.optim
    unsupported = {
        f"task {recipe.task}": recipe.task != "vqa",
        f"data.augment={data.augment}": data.augment != "none",
        "data.flip": data.flip,
        "optim.ema_decay": optim.ema_decay > 0,
        "optim.layer_decay": optim.layer_decay < 1,
    }
    for setting, is_set in unsupported.items():
        if is_set:
            raise SettingsError(
                message("vlm.unsupported-setting", "family vlm has no {setting}", setting=setting),
                message("vlm.unsupported-setting.hint", "leave it out, or use another family"),
            )


def find_base_model(name: str | None) -> Path:
    """The folder of a base model: a path, OWNER/NAME[@REVISION] of the hub, or a folder in assets/ with the path's
    last part as its name.

    Raises:
        AssetError: none is named, or it cannot be found; says how to get it.
        ModelError: it is not a model folder.
    """
    if name is None:
        raise AssetError(
            message("vlm.no-base", "no base model named"),
            message(
                "vlm.no-base.hint",
                "give a folder or OWNER/NAME of the Hugging Face hub: --set model.base=NAME (which ones fit: "
                "kovqa models; to try without one: recipe tiny-vlm-scratch)",
            ),
        )
    path = _find_base(name)
    if (path / "kovqa.json").is_file() or (path / "run.yaml").is_file():
        step = find_model_folder(path, "vqa")
        path = step if is_huggingface_folder(step) else step / "model"
    if not (path / "config.json").is_file():
        raise ModelError(
            message(
                "vlm.not-a-model-folder",
                "{folder} is not a model folder: it has no config.json",
                folder=path,
            ),
            message("vlm.not-a-model-folder.hint", "unpack the model there, or name another folder"),
        )
    return path


def _find_base(name: str) -> Path:
    try:
        return find_asset(name, _base_not_found(name))
    except AssetError as error:
        # A checkpoint moved to another machine keeps the path of the first one.
        hub_name = hub_name_of_path(name)
        for other in (str(hub_name) if hub_name else None, Path(name).name):
            with contextlib.suppress(AssetError):
                if other:
                    return find_asset(other, _base_not_found(other))
        raise error from None


def _base_not_found(name: str) -> Message:
    return message("vlm.base-not-found", "base model {name} not found", name=name)
