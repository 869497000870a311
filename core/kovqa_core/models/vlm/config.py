"""Which base model, what of it learns, how it is asked. Imports nothing heavy.

Source: docs/sources/llava.md, L19, L33 and L36.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from kovqa_core.data.question_prompts import DEFAULT_INSTRUCTION, DEFAULT_MAX_NEW_TOKENS
from kovqa_core.download.find_asset import find_asset
from kovqa_core.errors import AssetError, ModelError
from kovqa_core.models.config import FamilyConfig
from kovqa_core.runs.folder import find_model_folder, is_huggingface_folder
from kovqa_core.settings.strict_yaml import StrictSettings

TuningMode = Literal["none", "lora", "full"]

# What people call a way of tuning -> vision, projector, language.
TUNING_PRESETS: dict[str, tuple[str, str, str]] = {
    "none": ("none", "none", "none"),
    "projector": ("none", "full", "none"),
    "lora": ("none", "none", "lora"),
    "qlora": ("none", "none", "qlora"),
    "full": ("full", "full", "full"),
}

# Settings that a Hugging Face folder of ours keeps beside it, in `kovqa.json`: how it is asked. No more:
# such a folder may come from anybody, and must not say that its code is to be run.
PROMPT_SETTINGS = ("instruction", "max_new_tokens", "max_pixels", "dtype")


class TuningSettings(StrictSettings):
    """What learns, part by part."""

    vision: TuningMode = "none"
    projector: TuningMode = "none"
    language: Literal["none", "lora", "qlora", "full"] = "none"

    @property
    def parts(self) -> dict[str, str]:
        """Part -> how it learns; a quantised model learns through LoRA."""
        return {part: "lora" if how == "qlora" else how for part, how in self.model_dump().items()}


class LoraSettings(StrictSettings):
    """Size of the low-rank updates."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    targets: tuple[str, ...] = Field(
        (), description="ends of module names, such as q_proj; empty: every linear layer of the part"
    )


class ModelConfig(FamilyConfig):
    """The `model:` part of a recipe, and `config.json` of a checkpoint."""

    base: str | None = Field(None, description="folder of a Hugging Face model, or its name in assets/")
    fingerprint: str | None = Field(None, description="of the base; another one is refused")
    random_init: bool = Field(
        False, description="no base: a small model with random weights, its tokenizer from the index"
    )
    weights: str | None = Field(None, description="run to start from: what it trained is taken over")
    train: TuningSettings = Field(
        TuningSettings(language="lora"),
        description=f"{', '.join(TUNING_PRESETS)}, or vision, projector and language apart",
    )
    tokens: tuple[str, ...] = Field((), description="tokens whose rows of the text table learn, too")
    frozen: tuple[str, ...] = Field(
        (), description="ends of module names that do not learn although their part does"
    )
    lora: LoraSettings = LoraSettings()
    max_pixels: int = Field(1_003_520, ge=1, description="larger pictures are reduced to this many pixels")
    max_text: int = Field(2048, ge=8, description="tokens of a training row, its picture's included")
    max_new_tokens: int = Field(DEFAULT_MAX_NEW_TOKENS, ge=1, description="tokens of an answer")
    instruction: str = Field(
        DEFAULT_INSTRUCTION, description="auto (as the question), ko, en, none, or any text"
    )
    loss: Literal["rows", "tokens"] = Field(
        "rows", description="mean over rows; or, as in LLaVA, over the answer tokens of a micro-batch"
    )
    dtype: Literal["bf16", "fp32"] = Field("bf16", description="of what does not learn")
    trust_remote_code: bool = Field(
        False, description="run Python code that the base model brings along; never kept"
    )

    @field_validator("train", mode="before")
    @classmethod
    def _short_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in TUNING_PRESETS:
                raise ValueError(
                    f"known: {', '.join(TUNING_PRESETS)}, or vision, projector and language apart"
                )
            return dict(zip(("vision", "projector", "language"), TUNING_PRESETS[value], strict=True))
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.tokens and self.train.language == "full":
            raise ValueError("tokens learn with the language model already: leave tokens away")
        if self.random_init and (self.base or self.weights or set(self.train.parts.values()) != {"full"}):
            raise ValueError(
                "random_init: neither base nor weights, and train: full (see recipe tiny-vlm-scratch)"
            )
        return self

    def required_files(self) -> list[Callable[[], object]]:
        """Checks, to be called, that base and weights are here."""
        if self.random_init:
            return []
        checks: list[Callable[[], object]] = [partial(find_base_model, self.base)]
        if self.weights is not None:
            checks.append(partial(find_model_folder, Path(self.weights), "vqa"))
        return checks


def find_base_model(name: str | None) -> Path:
    """The folder of a base model: a path, or where its last part lies in assets/.

    Raises:
        AssetError: none is named, or it is nowhere; says where to put it.
        ModelError: it is no model folder.
    """
    if name is None:
        raise AssetError(
            "no base model named",
            "give a folder or a name: --set model.base=NAME (a try without one: recipe tiny-vlm-scratch)",
        )
    try:
        path = find_asset(name, "base model")
    except AssetError:
        path = find_asset(Path(name).name, "base model")
    if (path / "kovqa.json").is_file() or (path / "run.yaml").is_file():
        step = find_model_folder(path, "vqa")
        path = step if is_huggingface_folder(step) else step / "model"
    if not (path / "config.json").is_file():
        raise ModelError(
            f"{path} is no model folder: it has no config.json", "unpack it there, or name another"
        )
    return path
