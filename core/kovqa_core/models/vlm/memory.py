"""Memory of a step of a vision language model, from its config.json and the headers of its weight files.

Counted are language models like Llama and Qwen (RMSNorm, gated feed-forward part) and vision
transformers. Imports nothing heavy; of weight files nothing but the headers is read.
"""

from __future__ import annotations

import json
import re
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from kovqa_core.errors import ModelError
from kovqa_core.files import read_json
from kovqa_core.models.memory import CountStepMemory, ElementSize, StepMemory
from kovqa_core.models.vlm.config import ModelConfig, find_base_model

TYPICAL_TEXT_TOKENS = 128  # tokens of template, question and answer beside the picture's
ANSWER_SPREAD_TOKENS = (
    32  # tokens that may lie between the shortest prompt of a batch and the end of its longest row
)
_NF4_BYTES = 0.5 + 8 / 64 / 8 + 32 / 64 / 256  # bytes a 4-bit number takes, with its doubly quantised scales
_MAX_HEADER_BYTES = 100_000_000  # bytes, as in the safetensors library

# Names transformers gives to what lies between picture and text, and to the text model; all else sees.
_PROJECTOR_PATTERN = re.compile(r"\b\w*(projector|merger|connector)\w*\b")
_LANGUAGE_PATTERN = re.compile(r"\b(language_model|text_model|lm_head|embed_tokens)\b")
_VISION_PATTERN = re.compile(r"\bvis(ual|ion)\w*")  # files of the Hub name pictures' parts, and no others


def component_of(name: str) -> str:
    """The part a parameter or module belongs to, by its name: vision, projector or language."""
    if _PROJECTOR_PATTERN.search(name):
        return "projector"
    return "language" if _LANGUAGE_PATTERN.search(name) else "vision"


class WeightCounts(NamedTuple):
    """Numbers of a base model."""

    total: int
    learned: int  # as they are, or as low-rank updates
    updates: int  # of these: low-rank
    quantised: int  # in 4 bits


class VisionDimensions(NamedTuple):
    """The picture's side."""

    wide: int
    ffn: int
    layers: int
    patches: int  # of one picture
    tokens: int  # they become


def step_memory(config: ModelConfig, task: str, classes: int | None, by: ElementSize) -> StepMemory:
    """What one training step holds, of rows as long as a picture and a question are.

    Args:
        config: of the model; its base must be here.
        task: vqa.
        classes: not used: it writes freely.
        by: bytes of numbers, as the profile says; `dtype: bf16` makes products in 16 bits anyway.

    Raises:
        AssetError: the base is not here.
        ModelError: it has no safetensors files, or a configuration of another kind.
    """
    folder = find_base_model(str(config.base))
    try:
        about = read_json(folder / "config.json")
        text, sight = about.get("text_config", about), _vision_dimensions(about, config.max_pixels)
        held = _count_weights(_read_tensor_shapes(folder), config)
        return _count_step_memory(
            config, text, sight, held, ElementSize(2, by.cpu) if config.dtype == "bf16" else by
        )
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder}/config.json says nothing of {error}: memory cannot be counted") from None


def _count_step_memory(
    config: ModelConfig, text: dict[str, Any], sight: VisionDimensions, held: WeightCounts, by: ElementSize
) -> StepMemory:
    wide, layers, vocab = text["hidden_size"], text["num_hidden_layers"], text["vocab_size"]
    tokens = min(config.max_text, sight.tokens + TYPICAL_TEXT_TOKENS)
    resting = 4 if config.dtype == "fp32" else 2
    as_is = held.learned - held.updates
    plain = held.total - as_is - held.quantised
    stream = 4 if config.train.language == "full" else resting
    layer = tokens * _language_layer_bytes(text, config, stream, by)
    looking = sight.patches * _vision_layer_bytes(sight, config, by) * (config.train.vision != "none")
    joins = sight.tokens * wide * 4.0 * by.product * (config.train.projector != "none")
    scores = (3 * 4 + by.product) * vocab  # kept, and two gradients, in 32 bits; a first one in 16
    mixed = by.product == 2
    table = (
        2.0 * resting * vocab * wide * bool(config.tokens)
    )  # peft's copy with the learned rows, its gradient
    return StepMemory(
        weights=4.0 * held.learned + resting * plain + _NF4_BYTES * held.quantised,
        parameters=held.total + held.updates,
        learned=held.learned,
        casts=2.0 * (held.learned + (plain if resting == 4 else 0)) * mixed + table,
        kept=layers * layer + sight.layers * looking + joins,
        checkpointed=(layers * tokens * wide * stream + looking + joins),
        layer=max(layer, looking),
        logits=scores * min(tokens, config.max_new_tokens + ANSWER_SPREAD_TOKENS),
        temporary=2.0 * by.product * tokens * text["intermediate_size"],
    )


def _language_layer_bytes(text: dict[str, Any], config: ModelConfig, stream: int, by: ElementSize) -> float:
    """Kept of one token: both norms' copies in 32 bits, queries, keys, values, attention, both sides of the gate.

    What a product reads is kept only where its weight learns, or an update of it.
    """
    wide, ffn, heads, p = (
        text["hidden_size"],
        text["intermediate_size"],
        text["num_attention_heads"],
        by.product,
    )
    head = text.get("head_dim") or wide // heads
    attention = heads * head  # keys and values are repeated for every head
    how = config.train.language
    kept = 4 * 2 * wide + 4 * p * attention + 3 * p * ffn
    if how == "full":
        inputs = 2 * wide if p == 4 else 5 * wide  # 16 bits: each product makes its own copy
        kept += p * (inputs + ffn) + 4 * 2 * wide
    elif how in ("lora", "qlora"):
        read = {"q_proj": wide, "k_proj": wide, "v_proj": wide, "o_proj": attention,
                "gate_proj": wide, "up_proj": wide, "down_proj": ffn}  # fmt: skip
        adapted = sum(n for name, n in read.items() if _gets_lora(name, config))
        mask = (4 if by.cpu else 1) if config.lora.dropout else 0
        shared = p == 4 and not config.lora.dropout  # three read the same input, which is kept once
        kept += (p + mask) * (adapted if not shared else adapted - 3 * wide)
    return kept


def _gets_lora(name: str, config: ModelConfig) -> bool:
    return not config.lora.targets or name.endswith(config.lora.targets)


def _vision_layer_bytes(sight: VisionDimensions, config: ModelConfig, by: ElementSize) -> float:
    """Kept of one patch: what both norms read, queries, keys, values, attention, and the feed-forward part."""
    kept = (8 + 4 * by.product) * sight.wide + 2 * by.product * sight.ffn
    return kept + by.product * (3 * sight.wide + sight.ffn)


def _vision_dimensions(about: dict[str, Any], max_pixels: int) -> VisionDimensions:
    """The picture's side of a config.json, under the names of the two kinds there are."""
    vision = about["vision_config"]
    wide, patch = vision["hidden_size"], vision["patch_size"]
    patch = patch if isinstance(patch, int) else patch[0]
    layers = vision.get("num_hidden_layers") or vision["depth"]
    if "spatial_merge_size" in vision:  # as large as the picture is
        patches = max_pixels // patch**2
        tokens = patches // vision["spatial_merge_size"] ** 2
    else:
        side = vision["image_size"]
        patches = prod(side if isinstance(side, list) else (side, side)) // patch**2
        tokens = about.get("image_seq_length") or about.get("mm_tokens_per_image") or patches
    return VisionDimensions(wide, vision.get("intermediate_size", 4 * wide), layers, patches, tokens)


def _count_weights(tensors: dict[str, tuple[int, ...]], config: ModelConfig) -> WeightCounts:
    """What is there and what of it learns, by the names and shapes of tensors."""
    total = learned = updates = quantised = 0
    for name, shape in tensors.items():
        part, module = _component_in_file(name), name.rpartition(".")[0]
        numbers, how = prod(shape), config.train.parts[_component_in_file(name)]
        is_layer = len(shape) == 2 and "embed" not in name and not module.endswith("lm_head")
        total += numbers
        if how == "full" and not (config.frozen and module.endswith(config.frozen)):
            learned += numbers
        elif how == "lora" and is_layer and _gets_lora(module, config):
            updates += config.lora.rank * sum(shape)
        if part == "language" and config.train.language == "qlora" and is_layer:
            quantised += numbers
    return WeightCounts(total, learned + updates, updates, quantised)


def _component_in_file(name: str) -> str:
    if _PROJECTOR_PATTERN.search(name):
        return "projector"
    return "vision" if _VISION_PATTERN.search(name) else "language"


def _read_tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a folder's safetensors files.

    Raises:
        ModelError: there are none, or one is no such file.
    """
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(min(length, _MAX_HEADER_BYTES)))
            found |= {name: tuple(t["shape"]) for name, t in header.items() if name != "__metadata__"}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(f"{path} is no safetensors file", "fetch it again") from None
    if not found:
        raise ModelError(f"{folder} has no safetensors files: memory cannot be counted")
    return found


COUNT_STEP_MEMORY: CountStepMemory[ModelConfig] = step_memory
