"""Memory of a fusion step, counted from the configurations of both encoders. Imports nothing heavy.

Question encoders are counted as XLM-R-like ones, image encoders as timm's ResNets and plain vision
transformers; for any other there is no estimate.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from kovqa_core.errors import KovqaError, SettingsError
from kovqa_core.files import read_bytes, read_json
from kovqa_core.messages import message
from kovqa_core.models.fusion.config import (
    EncoderSettings,
    ModelConfig,
    find_image_encoder,
    find_question_encoder,
    find_tokenizer_file,
    image_encoder_config,
    question_encoder_config,
)
from kovqa_core.models.memory import TYPICAL_CLASSES, CountStepMemory, ElementSize, StepMemory
from kovqa_core.tokenizer import sentencepiece_model

XLMR_VOCAB_SIZE = 250002  # of XLM-RoBERTa, where there is no folder to look into
_RESNET_LAYERS = {
    18: [2, 2, 2, 2],
    34: [3, 4, 6, 3],
    50: [3, 4, 6, 3],
    101: [3, 4, 23, 3],
    152: [3, 8, 36, 3],
}
_VIT_DIMENSIONS = {  # width, layers, feed-forward width as a multiple
    "tiny": (192, 12, 4.0), "small": (384, 12, 4.0), "base": (768, 12, 4.0), "large": (1024, 24, 4.0),
    "so400m": (1152, 27, 3.7362), "huge": (1280, 32, 4.0),
}  # fmt: skip


class ComponentMemory(NamedTuple):
    """What one component of the network holds: numbers, and bytes of one example, as in `StepMemory`."""

    parameters: float
    products: float  # parameters that are weights of products
    activations: float
    checkpointed: float
    layer: float
    regions: int = 1  # P of the grid it gives
    channels: int = 0  # width of a region
    is_even: bool = True  # every layer has as many weights and activations as the next


def step_memory(config: ModelConfig, task: str, classes: int | None, by: ElementSize) -> StepMemory:
    """What one training step holds, with questions of `max_text` tokens.

    Args:
        config: of the model.
        task: "vqa".
        classes: answers of the index; None: not known.
        by: bytes of numbers.

    Raises:
        SettingsError: an image encoder of another kind.
    """
    encoder = _resolve_question_config(config)
    question = _question_encoder_memory(config, encoder, by)
    image = _image_encoder_memory(config, _resolve_image_config(config), by)
    width, answers = int(encoder["hidden_size"]), config.num_classes or classes or TYPICAL_CLASSES
    tokens = config.max_text + image.regions if config.fusion == "grid" else 1
    layer = _post_norm_layer_memory(
        width, config.transformer_ffn, config.transformer_heads, tokens, config.transformer_dropout, by
    )
    fusion = _repeat_layers(config.transformer, layer)
    head = width * config.hidden_size + config.hidden_size * answers + image.channels * width
    frozen_parts = {"none": [], "picture": [image], "both": [image, question]}[config.freeze]
    frozen = sum(part.parameters for part in frozen_parts)
    if config.freeze != "none":
        image = image._replace(activations=0.0, checkpointed=0.0)
    if config.freeze == "both":
        question = question._replace(activations=0.0, checkpointed=0.0)
    products = question.products + image.products + fusion.products + head
    total = int(question.parameters + image.parameters + fusion.parameters + head)
    joins = 12 * tokens * width + image.regions * image.channels * by.product_bytes
    return StepMemory(
        weights=4.0 * total,
        parameters=total,
        learned=total - int(frozen),
        casts=0.0 if by.product_bytes == 4 else 2.0 * products,
        activations=question.activations + image.activations + fusion.activations + joins,
        # Both encoders checkpoint their activations, the fusion's layers do not.
        checkpointed=question.checkpointed + image.checkpointed + fusion.activations + joins,
        layer=max(question.layer, image.layer),
        logits=20.0 * answers,
        temporary=image.layer / 4,
        early=0 if image.is_even or frozen_parts else int(image.parameters),
    )


def _resolve_question_config(config: ModelConfig) -> EncoderSettings:
    """The complete configuration, also where the encoder is not here."""
    try:
        folder = None if config.random_init else find_question_encoder(config.question)
    except KovqaError:
        return question_encoder_config(config.question_config, None, XLMR_VOCAB_SIZE)
    return question_encoder_config(config.question_config, folder, _tokenizer_vocab_size(config))


def _resolve_image_config(config: ModelConfig) -> EncoderSettings:
    try:
        folder = None if config.random_init else find_image_encoder(config.picture)
    except KovqaError:
        folder = None
    return image_encoder_config(config.picture_config, folder)


def _tokenizer_vocab_size(config: ModelConfig) -> int:
    """Rows that a new text table will have: as many as the tokenizer has ids."""
    try:
        path = find_tokenizer_file(config)
        if path.suffix == ".json":
            return len(read_json(path)["model"]["vocab"])
        return sentencepiece_model.load_spm_processor(read_bytes(path), str(path)).get_piece_size() + 2
    except (KovqaError, KeyError, TypeError):
        return XLMR_VOCAB_SIZE


def _repeat_layers(count: int, one: ComponentMemory) -> ComponentMemory:
    parameters, products, activations, checkpointed = (count * value for value in one[:4])
    return ComponentMemory(parameters, products, activations, checkpointed, one.layer)


def _question_encoder_memory(
    config: ModelConfig, encoder: EncoderSettings, by: ElementSize
) -> ComponentMemory:
    """An encoder of transformers: tables, layers, and the pooler."""
    width, text = int(encoder["hidden_size"]), config.max_text
    layers, dropout = (
        int(encoder["num_hidden_layers"]),
        float(encoder.get("attention_probs_dropout_prob", 0.1)),
    )
    ffn, heads = int(encoder["intermediate_size"]), int(encoder["num_attention_heads"])
    all_layers = _repeat_layers(layers, _post_norm_layer_memory(width, ffn, heads, text, dropout, by))
    pooler = 0 if config.fusion == "grid" else width**2
    tables = (int(encoder["vocab_size"]) + int(encoder.get("max_position_embeddings", 512))) * width
    return all_layers._replace(
        parameters=all_layers.parameters + tables + pooler, products=all_layers.products + pooler
    )


def _post_norm_layer_memory(
    width: int, ffn: int, heads: int, tokens: int, dropout: float, by: ElementSize
) -> ComponentMemory:
    """A post-norm layer: q, k and v of one input, attention, and what both norms and GELU or ReLU read.

    With dropout, attention on a CPU is made of plain products, which keep scores and scaled copies.
    """
    p = by.product_bytes
    inputs = 4 if p == 4 else 3 * p  # in 16 bits q, k and v each make their own copy
    plain = by.is_cpu and dropout > 0
    masks = 2 * by.dropout_mask_bytes if dropout else 0
    per_token = (inputs + 3 * p + p + 4 + p + 4 + masks + 2 * p * plain) * width + 2 * p * ffn
    scores = (2 * p + by.dropout_mask_bytes) * heads * tokens**2 if plain else 0
    activations = tokens * per_token + scores
    products = 4 * width**2 + 2 * width * ffn
    # Vectors: biases of q, k, v and output (4 D), two norms (4 D), the feed-forward's biases (ffn + D).
    return ComponentMemory(products + 9 * width + ffn, products, activations, 4 * tokens * width, activations)


def _image_encoder_memory(config: ModelConfig, encoder: EncoderSettings, by: ElementSize) -> ComponentMemory:
    name = str(encoder["architecture"])
    if resnet := re.match(r"resnet(\d+)d?(\.|_|$)", name):
        depth = int(resnet[1])
        if depth in _RESNET_LAYERS:
            layers = encoder.get("layers", _RESNET_LAYERS[depth])
            return _resnet_memory(
                config.image_size,
                layers,
                encoder.get("channels", [64, 128, 256, 512]),
                by,
                bottleneck=depth >= 50,
            )
    vit = re.match(r"vit_([a-z0-9]+)_patch(\d+)", name)
    if vit and vit[1] in _VIT_DIMENSIONS:
        width, layers, multiple = _VIT_DIMENSIONS[vit[1]]
        width, layers = int(encoder.get("embed_dim", width)), int(encoder.get("depth", layers))
        ffn, patch = int(encoder.get("mlp_ratio", multiple) * width), int(encoder.get("patch_size") or vit[2])
        return _vit_memory(width, layers, ffn, (config.image_size // patch) ** 2, 3 * patch**2, by)
    raise SettingsError(
        message("fusion.uncounted-encoder", "the memory of image encoder {name} cannot be counted", name=name)
    )


def _vit_memory(
    width: int, layers: int, ffn: int, patches: int, pixels: int, by: ElementSize
) -> ComponentMemory:
    """A pre-norm vision transformer: twice the stream and its norm, q, k, v, attention, both sides of GELU."""
    p = by.product_bytes
    activations = patches * ((8 + 2 * p + 3 * p + p) * width + 2 * p * ffn)
    products = 4 * width**2 + 2 * width * ffn
    one = ComponentMemory(
        products + 9 * width + ffn, products, activations, 4.0 * patches * width, activations
    )
    stem = (pixels + patches) * width
    return _repeat_layers(layers, one)._replace(
        parameters=layers * one.parameters + stem, products=layers * products + pixels * width,
        regions=patches + 1, channels=width,
    )  # fmt: skip


def _resnet_memory(
    side: int, layers: list[int], channels: list[int], by: ElementSize, *, bottleneck: bool
) -> ComponentMemory:
    """A ResNet: every convolution keeps its result for the norm, and the norm's for the next one."""
    grow = 4 if bottleneck else 1
    area, into = (side // 2) ** 2, 64  # after the stem
    # The stem: a 7 × 7 convolution of 3 channels to 64, whose result and norm are both kept.
    weights, activations, between, largest = 3.0 * 64 * 49, area * 64 * 2.0 * by.product_bytes, 0.0, 0.0
    area = (side // 4) ** 2
    activations += area * 64 * (8 + by.product_bytes)  # the pool keeps positions as 64-bit numbers
    between = activations
    for stage, (count, width) in enumerate(zip(layers, channels, strict=True)):
        for block in range(count):
            out, before = width * grow, area
            if stage and not block:
                # Each stage but the first halves both sides.
                area //= 4
            if bottleneck:
                results = 2 * width * before + 2 * width * area + 2 * out * area
                # 1 × 1, 3 × 3 and 1 × 1; the stride is in the second one, so the first works on the larger area.
                weights += into * width + 9 * width**2 + width * out
            else:
                results = 4 * width * area
                weights += 9 * into * width + 9 * width**2
            if not block and into != out:
                # The shortcut is projected where the number of channels changes.
                results += out * area
                weights += into * out
            activations += results * by.product_bytes
            largest = max(largest, results * by.product_bytes)
            between, into = between + out * area * by.product_bytes, out
    # 1.003: the vectors of the norms, about 0.3 % of all numbers.
    return ComponentMemory(weights * 1.003, weights, activations, between, largest, area, into, False)


COUNT_STEP_MEMORY: CountStepMemory[ModelConfig] = step_memory
