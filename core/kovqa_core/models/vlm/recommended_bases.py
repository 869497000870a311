"""Published models to begin with: how large a GPU each needs, its licence, what it can do in Korean. No torch.

`recommended_bases.yaml` holds what cards and papers say, each figure with its source. Memory is counted here, by the
count of a training's plan, where a model's configuration is known; elsewhere it is what the card says of answering, or
the weights alone. Facts: docs/sources/hub_models.md, H2 to H4.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from kovqa_core.models.memory import (
    BYTES_PER_GB,
    USABLE_FRACTION,
    ElementSize,
    answer_bytes,
    estimate_memory,
)
from kovqa_core.models.vlm.config import ModelConfig, TuningSettings
from kovqa_core.models.vlm.memory import TensorShapes, count_step_memory
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.strict_yaml import StrictSettings, build_settings, read_yaml

GPU_SIZES = (8, 12, 16, 24, 48, 80)  # GB of the cards there are
TRAINING_PIXELS, TRAINING_TOKENS = 401_408, 1024  # of a row, as in recipe dacon-vlm-lora
_GPU = ElementSize(2, is_cpu=False)
_TABLE = Path(__file__).with_suffix(".yaml")


class KoreanScore(StrictSettings):
    """What a model reached on a Korean benchmark, in per cent."""

    set: str
    score: float
    source: str


class TextConfig(StrictSettings):
    """Keys of `text_config`, as transformers calls them."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tie_word_embeddings: bool
    head_dim: int = 0  # 0: the width divided by the heads


class VisionConfig(StrictSettings):
    """Keys of `vision_config`, as transformers calls them, and what its class is like."""

    depth: int
    hidden_size: int
    intermediate_size: int
    patch_size: int
    spatial_merge_size: int
    gated: bool = False  # a gated feed-forward network: three matrices, not two
    mergers: int = 1  # projectors into the language model; Qwen3-VL has one more for each of three layers


class NetworkConfig(StrictSettings):
    """Of a `config.json` what memory is counted from."""

    text_config: TextConfig
    vision_config: VisionConfig


class RecommendedBase(StrictSettings):
    """A published model.

    Attributes:
        name: OWNER/NAME on the hub.
        parameters: in billions; without a source: counted from `config`.
        licence: as its card calls it; "": not looked up.
        korean: scores on Korean benchmarks; of different sources not to be compared.
        config: None: a network that cannot be counted.
        answering_gb: what its makers say that answering takes.
    """

    name: str
    parameters: float
    parameters_source: str = ""
    licence: str = ""
    licence_source: str = ""
    korean: tuple[KoreanScore, ...] = ()
    config: NetworkConfig | None = None
    answering_gb: float | None = None
    answering_source: str = ""


class _BaseTable(StrictSettings):
    sources: dict[str, str]
    bases: tuple[RecommendedBase, ...]

    @model_validator(mode="after")
    def _sources_are_known(self) -> _BaseTable:
        for base in self.bases:
            named = {base.parameters_source, base.licence_source, base.answering_source}
            unknown = (named | {score.source for score in base.korean}) - {"", *self.sources}
            if unknown:
                raise ValueError(f"{base.name}: unknown source {min(unknown)}")
        return self


@functools.cache
def _read_table() -> _BaseTable:
    return build_settings(_BaseTable, read_yaml(_TABLE))


def recommended_bases() -> Sequence[RecommendedBase]:
    """All of them, the smallest first."""
    return sorted(_read_table().bases, key=lambda base: base.parameters)


def base_sources() -> Mapping[str, str]:
    """The sources of their figures, by the names under which the figures stand."""
    return _read_table().sources


@dataclass(frozen=True)
class BaseMemory:
    """GPU memory that a model needs, in bytes; None: not known.

    Attributes:
        answering: one question at a time.
        answering_4bit: with `--load 4bit`.
        lora, qlora: training one row at a time, activations computed twice.
        method: "counted" from its configuration; "card": as its makers say; "weights": 16 bits a parameter, nothing else.
    """

    answering: float
    answering_4bit: float | None
    lora: float | None
    qlora: float | None
    method: Literal["counted", "card", "weights"]

    @property
    def uses(self) -> dict[str, float | None]:
        """Name of a use -> bytes."""
        return {
            "answering": self.answering, "answering_4bit": self.answering_4bit, "lora": self.lora, "qlora": self.qlora,
        }  # fmt: skip


def base_memory(base: RecommendedBase) -> BaseMemory:
    """GPU memory that a model needs."""
    if base.config is None:
        if base.answering_gb is not None:
            return BaseMemory(base.answering_gb * 1e9, None, None, None, "card")
        return BaseMemory(2e9 * base.parameters, None, None, None, "weights")
    return BaseMemory(
        _answering_bytes(base.config, "none"),
        _answering_bytes(base.config, "qlora"),
        _training_bytes(base.config, "lora"),
        _training_bytes(base.config, "qlora"),
        "counted",
    )


def smallest_gpu(needed: float | None) -> int | None:
    """The smallest of `GPU_SIZES` whose memory so many bytes fit into; None: none, or it is not known."""
    if needed is None:
        return None
    return next((size for size in GPU_SIZES if needed <= USABLE_FRACTION * size * BYTES_PER_GB), None)


def _answering_bytes(config: NetworkConfig, language: Literal["none", "qlora"]) -> float:
    model = ModelConfig(train=TuningSettings(language=language))
    step = count_step_memory(model, config.model_dump(), tensor_shapes(config), _GPU, learns=False)
    return step.weights + answer_bytes(step, writes=True)


def _training_bytes(config: NetworkConfig, language: Literal["lora", "qlora"]) -> float:
    model = ModelConfig(
        train=TuningSettings(language=language), max_pixels=TRAINING_PIXELS, max_text=TRAINING_TOKENS
    )
    step = count_step_memory(model, config.model_dump(), tensor_shapes(config), _GPU)
    profile = Profile(name="one GPU", gpu="NVIDIA", activation_checkpointing=True)
    # With accumulation, as a global batch of 64 has it: gradients are there while activations are.
    return estimate_memory(step, profile, micro_batch=1, accumulate=2).peak


def tensor_shapes(config: NetworkConfig) -> TensorShapes:
    """Names and shapes of a network's matrices; vectors, under a thousandth of all numbers, are left out."""
    return dict([*_text_tensors(config.text_config), *_vision_tensors(config)])


def _text_tensors(text: TextConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, ffn = text.hidden_size, text.intermediate_size
    head = text.head_dim or width // text.num_attention_heads
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    yield "language_model.embed_tokens.weight", (text.vocab_size, width)
    if not text.tie_word_embeddings:
        yield "lm_head.weight", (text.vocab_size, width)
    shapes = {
        "q_proj": (queries, width), "k_proj": (keys, width), "v_proj": (keys, width), "o_proj": (width, queries),
        "gate_proj": (ffn, width), "up_proj": (ffn, width), "down_proj": (width, ffn),
    }  # fmt: skip
    for layer in range(text.num_hidden_layers):
        for name, shape in shapes.items():
            yield f"language_model.layers.{layer}.{name}.weight", shape


def _vision_tensors(config: NetworkConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    vision, text_width = config.vision_config, config.text_config.hidden_size
    width, ffn = vision.hidden_size, vision.intermediate_size
    for layer in range(vision.depth):
        yield f"visual.blocks.{layer}.qkv.weight", (3 * width, width)
        yield f"visual.blocks.{layer}.proj.weight", (width, width)
        for number in range(3 if vision.gated else 2):
            yield f"visual.blocks.{layer}.fc{number}.weight", (ffn, width)
    merged = width * vision.spatial_merge_size**2
    for number in range(vision.mergers):
        yield f"visual.merger.{number}.fc1.weight", (merged, merged)
        yield f"visual.merger.{number}.fc2.weight", (text_width, merged)
