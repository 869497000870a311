"""Dimensions and settings of BEiT-3 models. Imports nothing heavy.

Source: the published fine-tuning code of BEiT-3 (arXiv 2208.10442) and its model table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from kovqa_core.download.find_asset import find_asset
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.models.config import FamilyConfig
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.settings.strict_yaml import StrictSettings
from kovqa_core.tokenizer.sentencepiece_model import require_model_file

# Positions start at row 2 of both tables, as in fairseq; rows 0 and 1 exist in the files and are never read.
POSITION_OFFSET = 2
TEXT_POSITIONS = 1024

# The tokenizer of the authors' own weights, and rows of their text tables that none of its ids reads.
PUBLISHED_TOKENIZER = "beit3.spm"
SPARE_TEXT_ROWS = 8

# Components that not every task has: of a classifier the first two, of a captioner the others.
Reinit = Literal["pooler", "head", "mlm_head", "layer_norm"]


class ModelDimensions(NamedTuple):
    """Width, heads, layers and feed-forward width of a model."""

    embed_dim: int
    num_heads: int
    num_layers: int
    ffn_dim: int


NAMED_DIMENSIONS = {
    "tiny": ModelDimensions(96, 6, 3, 384),
    "base": ModelDimensions(768, 12, 12, 3072),
    "large": ModelDimensions(1024, 16, 24, 4096),
}


class CaptionSettings(StrictSettings):
    """How captions are learned and searched for; the defaults are the original's."""

    mask: float = Field(
        0.6, gt=0, le=1, description="fraction of a caption's tokens to be predicted", examples=[0.5]
    )
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing", examples=[0.0])
    drop_worst: float = Field(
        0.2, ge=0, lt=1, description="fraction of the losses, the largest, left out", examples=[0.0]
    )
    drop_worst_after: int = Field(
        12000, ge=0, description="optimizer steps before that begins", examples=[6000]
    )
    num_beams: int = Field(3, ge=1, description="captions followed at once; 1: greedy", examples=[1])
    length_penalty: float = Field(
        0.6, ge=0, description="power of the length scores are divided by", examples=[1.0]
    )


class ModelConfig(FamilyConfig):
    """The `model:` part of a recipe, and `config.json` of a checkpoint."""

    size: Literal["tiny", "base", "large", "custom"] = Field(
        "base",
        description="dimensions: of the published models base and large, of a toy, or your own (custom)",
    )
    image_size: int = Field(
        224, ge=1, le=16384, description="side of the square input image, pixels", examples=[480]
    )
    patch_size: int = Field(16, ge=1, description="side of a patch, pixels", examples=[14])
    max_text: int = Field(
        64, ge=3, le=TEXT_POSITIONS - POSITION_OFFSET, description="most tokens of a question", examples=[32]
    )
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="stochastic depth of the last layer", examples=[0.1]
    )
    vocab_size: int | None = Field(
        None,
        ge=5,
        description="rows of the text table; default: as many as the tokenizer has",
        examples=[64010],
    )
    num_classes: int | None = Field(
        None, ge=1, description="number of answers; default: as many as the index has", examples=[3129]
    )
    tokenizer: str | None = Field(
        None, description="SentencePiece model; --tokenizer wins", examples=["beit3.spm"]
    )
    tokenizer_sha256: str | None = Field(
        None, description="SHA-256 of the tokenizer; another one is refused", examples=["3d2c…"]
    )
    weights: str | None = Field(
        None, description="published weights or a run to start from", examples=["beit3_base_itc_patch16_224"]
    )
    weights_tokenizer: str | None = Field(
        None,
        description="tokenizer the weights were trained with; known for published weights and runs",
        examples=["beit3.spm"],
    )
    text_rows: Literal["carried", "original"] = Field(
        "carried",
        description="carried: a token takes its row along; original: id k keeps row k, as in KoBEiT3",
    )
    caption: CaptionSettings = CaptionSettings()
    reinit: tuple[Reinit, ...] = Field(
        (), description="components newly initialised although weights are given", examples=[["head"]]
    )
    custom: ModelDimensions | None = Field(
        None, description="dimensions, with `size: custom`", examples=[[192, 3, 6, 768]]
    )

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.image_size % self.patch_size:
            raise ValueError(
                message(
                    "beit3.odd-image-size",
                    "image_size {image_size} is not a multiple of patch_size {patch_size}",
                    image_size=self.image_size,
                    patch_size=self.patch_size,
                )
            )
        if (self.size == "custom") != (self.custom is not None):
            raise ValueError(
                message(
                    "beit3.custom-with-size",
                    "size: custom and custom: [width, heads, layers, ffn] go together",
                )
            )
        if self.dimensions.embed_dim % self.dimensions.num_heads:
            raise ValueError(message("beit3.odd-width", "custom: the width is not a multiple of the heads"))
        return self

    @property
    def dimensions(self) -> ModelDimensions:
        """Width, heads, layers and feed-forward width."""
        return self.custom if self.custom is not None else NAMED_DIMENSIONS[self.size]

    @property
    def num_patches(self) -> int:
        """Patches of one image, without the class token."""
        return (self.image_size // self.patch_size) ** 2

    def required_files(self) -> list[Callable[[], object]]:
        """Checks, to be called, that tokenizer and weights are here.

        Raises:
            SettingsError: at once: no tokenizer is named.
        """
        if self.tokenizer is None:
            raise no_tokenizer_error()
        checks: list[Callable[[], object]] = [partial(find_tokenizer, self.tokenizer)]
        if self.weights is not None:
            checks.append(partial(find_weights, self.weights))
            checks.append(partial(find_weights_tokenizer, self))
        return checks


def no_tokenizer_error() -> SettingsError:
    """The error of a recipe without a tokenizer."""
    return SettingsError(
        message("beit3.no-tokenizer", "no tokenizer named"),
        message(
            "beit3.no-tokenizer.hint",
            "train one on the index (or texts): kovqa tokenizer train INDEX -o tokenizer.model; then add "
            "--tokenizer tokenizer.model",
        ),
    )


def find_tokenizer(name: str) -> Path:
    """The SentencePiece file of a model's questions and captions.

    Raises:
        AssetError: it is nowhere.
        ModelError: it is something else, by its first byte.
    """
    path = find_asset(name, message("beit3.tokenizer-not-found", "tokenizer {name} not found", name=name))
    require_model_file(path)
    return path


def find_weights(name: str) -> Path:
    """The file of weights, or the step folder of a run.

    Raises:
        AssetError: it is nowhere.
        ModelError: a folder that is neither a run nor a step.
    """
    path = find_asset(name, message("beit3.weights-not-found", "weights {name} not found", name=name))
    if (path / "run.yaml").is_file() or (path / "kovqa.json").is_file():
        return find_model_folder(path, "vqa")
    return path


def has_published_name(path: Path) -> bool:
    """Is a file called like the authors' own weights?"""
    return path.name.startswith("beit3_")


def tokenizer_of_step(folder: Path) -> Path:
    """The SentencePiece file of a step folder, or of an exported one."""
    exported = folder / "tokenizer.model"
    return exported if exported.is_file() else folder / "tokenizer" / "spm.model"


def find_weights_tokenizer(config: ModelConfig) -> Path | None:
    """The tokenizer that the text rows of the weights belong to; None: it makes no difference.

    Raises:
        AssetError: weights or tokenizer are not here.
        SettingsError: it is neither named nor known.
    """
    if config.weights is None or config.text_rows == "original":
        return None
    if config.weights_tokenizer is not None:
        return find_asset(
            config.weights_tokenizer,
            message(
                "beit3.weights-tokenizer-not-found",
                "tokenizer of the weights {name} not found",
                name=config.weights_tokenizer,
            ),
        )
    path = find_weights(config.weights)
    if (path / "kovqa.json").is_file():
        return tokenizer_of_step(path)
    if has_published_name(path):
        return find_asset(
            PUBLISHED_TOKENIZER,
            message(
                "beit3.published-tokenizer-not-found",
                "tokenizer of the published weights {name} not found",
                name=PUBLISHED_TOKENIZER,
            ),
        )
    raise SettingsError(
        message(
            "beit3.unknown-weights-tokenizer",
            "which tokenizer were the weights {weights} trained with? Their text rows belong to it",
            weights=config.weights,
        ),
        message(
            "beit3.unknown-weights-tokenizer.hint",
            "--set model.weights_tokenizer=FILE, or {published} if it was the published one; "
            "--set model.text_rows=original takes rows by number",
            published=PUBLISHED_TOKENIZER,
        ),
    )
