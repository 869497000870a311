"""Memory of a step of a vision language model, from its config.json and the headers of its weight files.

Counted are language models like Llama and Qwen (RMSNorm, gated feed-forward network) and vision
transformers. Imports nothing heavy; of weight files nothing but the headers is read. D, H and V as in
`models/family.py`; F is the width of a feed-forward network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import ModelError
from kovqa_core.files import read_json
from kovqa_core.messages import message
from kovqa_core.models.memory import CountStepMemory, ElementSize, StepMemory
from kovqa_core.models.vlm.config import ModelConfig, find_base_model

TYPICAL_TEXT_TOKENS = 128  # tokens of template, question and answer beside the image's
# Tokens that may lie between the shortest prompt of a batch and the end of its longest row.
ANSWER_SPREAD_TOKENS = 32
# Bytes a 4-bit number takes: NF4 shares an 8-bit scale among 64, and 256 of those share one of 32 bits
# (arXiv 2305.14314, section 3).
_NF4_BYTES = 0.5 + 8 / 64 / 8 + 32 / 64 / 256
_MAX_HEADER_BYTES = 100_000_000  # bytes, as in the safetensors library

# transformers' names of what lies between image and text, and of the text model; all else is the vision tower.
_PROJECTOR_PATTERN = re.compile(
    r"\b(\w*(projector|merger|connector)\w*|aligner|embed_vision|vision_adapter|vision_projection|resampler_model)\b"
)
# A text model without a name of its own has its layers right below the model: Chameleon, Idefics 1.
_LANGUAGE_PATTERN = re.compile(
    r"\b(language_model|text_model|lm_head|embed_tokens)\b|^(base_model\.model\.)?model\.(gated_cross_attn_)?(layers|norm)\b"
)
# In files of the Hub it is the other way round: only the vision tower's names are known.
_VISION_PATTERN = re.compile(r"\bvis(ual|ion)\w*")

TensorShapes = Mapping[str, tuple[int, ...]]


def component_of(name: str) -> str:
    """The component a parameter or module belongs to, by its name: vision, projector or language."""
    if _PROJECTOR_PATTERN.search(name):
        return "projector"
    return "language" if _LANGUAGE_PATTERN.search(name) else "vision"


class WeightCounts(NamedTuple):
    """Numbers of a base model."""

    total: int
    trainable: int  # as they are, or as low-rank updates
    updates: int  # of these: low-rank
    quantised: int  # in 4 bits


@dataclass(frozen=True)
class TextDimensions:
    """The language model of a config.json."""

    width: int
    ffn_width: int
    heads: int
    head_width: int
    layers: int
    vocab_size: int


class VisionDimensions(NamedTuple):
    """The vision tower of a config.json."""

    width: int
    ffn_width: int
    layers: int
    patches: int  # of one image
    tokens: int  # they become in the language model


def step_memory(config: ModelConfig, task: str, classes: int | None, by: ElementSize) -> StepMemory:
    """What one training step holds, of rows as long as an image and a question are.

    Args:
        config: of the model; its base must be here.
        task: vqa.
        classes: not used: it writes any text.
        by: bytes of numbers, as the profile says; `dtype: bf16` makes products in 16 bits anyway.

    Raises:
        AssetError: the base is not here.
        ModelError: it has no safetensors files, or a configuration of another kind; there is no base.
    """
    if config.random_init:
        raise ModelError(
            message("vlm.no-memory-of-random", "its small model is made of the index when training starts")
        )
    folder = find_base_model(config.base)
    try:
        return count_step_memory(config, read_json(folder / "config.json"), _read_tensor_shapes(folder), by)
    except (KeyError, TypeError) as error:
        raise ModelError(
            message(
                "vlm.dimensions-unknown",
                "{file} does not say {key}: memory cannot be counted",
                file=folder / "config.json",
                key=error,
            )
        ) from None


def count_step_memory(
    config: ModelConfig,
    hf_config: Mapping[str, Any],
    shapes: TensorShapes,
    by: ElementSize,
    *,
    learns: bool = True,
) -> StepMemory:
    """What one training step holds of a base of which only its `config.json` and the shapes of its tensors are known.

    Args:
        config: of the model; its base is not looked at.
        hf_config: the base's `config.json`.
        shapes: of the base's tensors.
        by: as of `step_memory`.
        learns: False: it only answers, and holds no low-rank updates.

    Raises:
        KeyError: `hf_config` does not name a dimension.
    """
    by = ElementSize(2, by.is_cpu) if config.dtype == "bf16" else by
    text = _text_dimensions(hf_config.get("text_config", hf_config))
    vision = _vision_dimensions(hf_config, config.max_pixels)
    weights = _count_weights(shapes, config)
    weights = weights if learns else weights._replace(trainable=0, updates=0)
    tokens = min(config.max_text, vision.tokens + TYPICAL_TEXT_TOKENS)
    frozen_bytes = 4 if config.dtype == "fp32" else 2
    trained_as_is = weights.trainable - weights.updates
    frozen = weights.total - trained_as_is - weights.quantised
    # The residual stream has the dtype of the embeddings it begins with.
    stream_bytes = 4 if config.train.language == "full" else frozen_bytes
    language_layer = tokens * _language_layer_bytes(text, config, stream_bytes, by)
    # Nothing is kept of what stands before the first number that learns.
    vision_layer = vision.patches * _vision_layer_bytes(vision, by) * (config.train.vision != "none")
    projector = vision.tokens * text.width * 4.0 * by.product_bytes * (config.train.projector != "none")
    # Of the logits of one position: kept, and two gradients, in 32 bits; a first one in 16.
    logits = (3 * 4 + by.product_bytes) * text.vocab_size
    with_autocast = by.product_bytes == 2
    # peft's copy of the text table with the trained rows, and its gradient.
    token_rows = 2.0 * frozen_bytes * text.vocab_size * text.width * bool(config.tokens)
    # peft makes the whole update of a weight anew in every pass, by way of an identity: the largest is counted.
    dora = 4.0 * (text.ffn_width**2 + 2 * text.width * text.ffn_width) * config.lora.use_dora
    return StepMemory(
        weights=4.0 * weights.trainable + frozen_bytes * frozen + _NF4_BYTES * weights.quantised,
        parameters=weights.total + weights.updates,
        learned=weights.trainable,
        casts=2.0 * (weights.trainable + (frozen if frozen_bytes == 4 else 0)) * with_autocast
        + token_rows
        + dora,
        activations=text.layers * language_layer + vision.layers * vision_layer + projector,
        checkpointed=text.layers * tokens * text.width * stream_bytes + vision_layer + projector,
        layer=max(language_layer, vision_layer),
        logits=logits * min(tokens, config.max_new_tokens + ANSWER_SPREAD_TOKENS),
        temporary=2.0 * by.product_bytes * tokens * text.ffn_width,
    )


def _language_layer_bytes(
    text: TextDimensions, config: ModelConfig, stream_bytes: int, by: ElementSize
) -> float:
    """Kept of one token: both norms' copies in 32 bits, queries, keys, values, attention, both sides of the gate.

    What a product reads is kept only where its weight learns, or an update of it.
    """
    width, ffn_width, p = text.width, text.ffn_width, by.product_bytes
    attention = text.heads * text.head_width  # keys and values are repeated for every head
    mode = config.train.language
    activations = 4 * 2 * width + 4 * p * attention + 3 * p * ffn_width
    if mode == "full":
        inputs = 2 * width if p == 4 else 5 * width  # 16 bits: each product makes its own copy
        activations += p * (inputs + ffn_width) + 4 * 2 * width
    elif mode in ("lora", "qlora"):
        input_widths = {"q_proj": width, "k_proj": width, "v_proj": width, "o_proj": attention,
                        "gate_proj": width, "up_proj": width, "down_proj": ffn_width}  # fmt: skip
        adapted = sum(n for name, n in input_widths.items() if _gets_lora(name, config))
        mask = (4 if by.is_cpu else 1) if config.lora.dropout else 0
        shared = p == 4 and not config.lora.dropout  # three read the same input, which is kept once
        activations += (p + mask) * (adapted if not shared else adapted - 3 * width)
        if config.lora.use_dora:
            # Each length learns by what its row gave, base and update apart.
            outputs = {**input_widths, "q_proj": attention, "k_proj": attention, "v_proj": attention, "o_proj": width,
                       "gate_proj": ffn_width, "up_proj": ffn_width, "down_proj": width}  # fmt: skip
            activations += 2 * p * sum(n for name, n in outputs.items() if _gets_lora(name, config))
    return activations


def _gets_lora(name: str, config: ModelConfig) -> bool:
    return not config.lora.targets or name.endswith(config.lora.targets)


def _vision_layer_bytes(vision: VisionDimensions, by: ElementSize) -> float:
    """Kept of one patch: what both norms read, queries, keys, values, attention, and the feed-forward network."""
    activations = (8 + 4 * by.product_bytes) * vision.width + 2 * by.product_bytes * vision.ffn_width
    return activations + by.product_bytes * (3 * vision.width + vision.ffn_width)


# ------------------------------------------------------------------------------ files of the base


def _text_dimensions(text_config: Mapping[str, int]) -> TextDimensions:
    """Raises KeyError where the file does not name one."""
    width, heads = text_config["hidden_size"], text_config["num_attention_heads"]
    return TextDimensions(
        width,
        text_config["intermediate_size"],
        heads,
        text_config.get("head_dim") or width // heads,
        text_config["num_hidden_layers"],
        text_config["vocab_size"],
    )


def _vision_dimensions(hf_config: Mapping[str, Any], max_pixels: int) -> VisionDimensions:
    """Under the names of the two kinds of configurations there are; raises KeyError where one is missing."""
    vision = hf_config["vision_config"]
    width, patch_size = vision["hidden_size"], vision["patch_size"]
    patch_size = patch_size if isinstance(patch_size, int) else patch_size[0]
    layers = vision.get("num_hidden_layers") or vision["depth"]
    if "spatial_merge_size" in vision:  # like Qwen: as many patches as the image has
        patches = max_pixels // patch_size**2
        tokens = patches // vision["spatial_merge_size"] ** 2
    else:  # like CLIP: every image is resized to one size
        side = vision["image_size"]
        patches = prod(side if isinstance(side, list) else (side, side)) // patch_size**2
        tokens = hf_config.get("image_seq_length") or hf_config.get("mm_tokens_per_image") or patches
    return VisionDimensions(width, vision.get("intermediate_size", 4 * width), layers, patches, tokens)


def _count_weights(shapes: TensorShapes, config: ModelConfig) -> WeightCounts:
    """How many numbers there are and how many of them learn, by the names and shapes of tensors."""
    total = trainable = updates = quantised = 0
    for name, shape in shapes.items():
        component, module = _component_in_file(name), name.rpartition(".")[0]
        numbers, mode = prod(shape), config.train.components[component]
        is_linear = len(shape) == 2 and "embed" not in name and not module.endswith("lm_head")
        total += numbers
        if mode == "full" and not (config.frozen and module.endswith(config.frozen)):
            trainable += numbers
        elif mode == "lora" and is_linear and _gets_lora(module, config):
            updates += config.lora.rank * sum(shape)  # B [out, r] and A [r, in]
            updates += shape[0] * config.lora.use_dora  # a length for each row
        if component == "language" and config.train.language == "qlora" and is_linear:
            quantised += numbers
    return WeightCounts(total, trainable + updates, updates, quantised)


def _component_in_file(name: str) -> str:
    if _PROJECTOR_PATTERN.search(name):
        return "projector"
    return "vision" if _VISION_PATTERN.search(name) else "language"


def _read_tensor_shapes(folder: Path) -> TensorShapes:
    """Name -> shape of every tensor of a folder's safetensors files.

    A file begins with the length of its header (8 bytes, little-endian) and the header, JSON.

    Raises:
        ModelError: there are none, or one is not such a file.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                header = parse_json(stream.read(min(length, _MAX_HEADER_BYTES)))
            shapes |= {name: tuple(t["shape"]) for name, t in header.items() if name != "__metadata__"}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(
                message("vlm.not-safetensors", "{file} is not a safetensors file", file=path),
                message("vlm.not-safetensors.hint", "fetch it again"),
            ) from None
    if not shapes:
        raise ModelError(
            message(
                "vlm.no-safetensors",
                "{folder} has no safetensors files: memory cannot be counted",
                folder=folder,
            )
        )
    return shapes


COUNT_STEP_MEMORY: CountStepMemory[ModelConfig] = step_memory
