"""Sizes and names of BEiT-3 models. Imports nothing heavy.

Source: the published fine-tuning code of BEiT-3 (arXiv 2208.10442) and its model table.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from kovqa_core.settings.reading import Settings

# Rows of the two position tables start at 2; rows 0 and 1 exist in the files and are never read.
POSITION_OFFSET = 2
TEXT_POSITIONS = 1024

# Where the authors publish their files.
PUBLISHED = "https://github.com/addf400/files/releases/download/beit3/"


class Size(NamedTuple):
    """Width, heads, layers and feed-forward width of a model."""

    embed_dim: int
    num_heads: int
    num_layers: int
    ffn_dim: int


SIZES = {
    "tiny": Size(96, 6, 3, 384),
    "base": Size(768, 12, 12, 3072),
    "large": Size(1024, 16, 24, 4096),
}


class Captioning(Settings):
    """How captions are learned and sought; the defaults are the original's."""

    mask: float = Field(0.6, gt=0, le=1, description="share of a caption's words to be named")
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing")
    drop_worst: float = Field(0.2, ge=0, lt=1, description="share of the worst losses left out")
    drop_worst_after: int = Field(12000, ge=0, description="optimizer steps before that begins")
    beams: int = Field(3, ge=1, description="captions followed at once; 1: greedy")
    length_penalty: float = Field(0.6, ge=0, description="power of the length scores are divided by")


class Config(Settings):
    """The `model:` part of a recipe, and `config.json` of a checkpoint."""

    size: Literal["tiny", "base", "large", "custom"] = "base"
    image: int = Field(224, ge=1, description="side of the square input picture, pixels")
    patch: int = Field(16, ge=1, description="side of a patch, pixels")
    max_text: int = Field(64, ge=3, le=TEXT_POSITIONS - POSITION_OFFSET, description="tokens of a question")
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth of the last layer")
    vocab: int | None = Field(None, ge=5, description="rows of the text table; default: as the tokenizer has")
    classes: int | None = Field(None, ge=1, description="answers; default: as the index has")
    tokenizer: str | None = Field(None, description="SentencePiece model; --tokenizer wins")
    weights: str | None = Field(None, description="published or own weights to start from")
    caption: Captioning = Captioning()
    fresh: tuple[Literal["pooler", "head"], ...] = Field(
        (), description="parts newly initialised although weights are given"
    )
    custom: Size | None = Field(None, description="sizes, with `size: custom`")

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.image % self.patch:
            raise ValueError(f"image {self.image} is no multiple of patch {self.patch}")
        if (self.size == "custom") != (self.custom is not None):
            raise ValueError("size: custom and custom: [width, heads, layers, ffn] go together")
        return self

    @property
    def sizes(self) -> Size:
        """Width, heads, layers and feed-forward width."""
        return self.custom if self.custom is not None else SIZES[self.size]

    @property
    def patches(self) -> int:
        """Patches of one picture."""
        return (self.image // self.patch) ** 2
