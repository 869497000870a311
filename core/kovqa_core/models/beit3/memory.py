"""Memory of a BEiT-3 step, counted tensor by tensor from its dimensions. Imports nothing heavy."""

from __future__ import annotations

from math import ceil

from kovqa_core.errors import KovqaError
from kovqa_core.files import read_bytes
from kovqa_core.models.beit3.config import POSITION_OFFSET, TEXT_POSITIONS, ModelConfig, find_tokenizer
from kovqa_core.models.memory import TYPICAL_CLASSES, CountStepMemory, ElementSize, StepMemory
from kovqa_core.tokenizer import sentencepiece_model

BEIT3_VOCAB_SIZE = 64010  # of the published tokenizer; where none can be opened


def step_memory(config: ModelConfig, task: str, classes: int | None, by: ElementSize) -> StepMemory:
    """What one training step holds, with texts of `max_text` tokens.

    Args:
        config: of the model.
        task: "vqa" or "caption".
        classes: answers of the index; None: not known.
        by: bytes of numbers.
    """
    # Shapes: P image tokens (class token included), T text tokens, D width; see models/family.py.
    vocab, answers = _text_table_rows(config), config.num_classes or classes or TYPICAL_CLASSES
    total, unused, products = _count_parameters(config, task, vocab, answers)
    size, text, image = config.dimensions, config.max_text, config.num_patches + 1
    width = size.embed_dim
    scores = by.product_bytes * size.num_heads if _keeps_attention_scores(by) else 0
    token = _bytes_per_token(config, by)
    # Of the last layer: stream, norm, keys and values of the tokens that are not read.
    last_token = (4 + 3 * by.product_bytes) * width
    between = 4 * (image + text) * width  # the stream from layer to layer
    if task == "vqa":
        layer = (image + text) * token + scores * (image + text) ** 2
        activations = (size.num_layers - 1) * layer + (image + text) * last_token
        logits = 16 * answers  # in fp32: logits, labels, and two gradients
    else:
        # The image's keys and values are joined with the text's in each layer: both, once more.
        joined = 2 * by.product_bytes * (image + text) * width
        layer = (image + text) * token + joined + scores * (image**2 + text * (image + text))
        activations = size.num_layers * layer - image * (token - last_token + scores * image)
        between += 2 * by.product_bytes * image * width  # the image's keys and values
        logits = 20 * vocab * ceil(config.caption.mask * text)
    stem = 3 * config.image_size**2 * (4 + by.product_bytes)  # pixels, and their patches
    return StepMemory(
        weights=4.0 * total,
        parameters=total,
        learned=total - unused,
        casts=0.0 if by.product_bytes == 4 else 2.0 * products,
        activations=activations + stem,
        checkpointed=size.num_layers * between + stem,
        layer=layer,
        logits=logits,
        temporary=2.0 * by.product_bytes * image * size.ffn_dim,
    )


def _bytes_per_token(config: ModelConfig, by: ElementSize) -> int:
    """Kept of one token in one layer.

    Of width D: what both norms read and give, q, k and v, what attention gave, and its inner norm; of the
    feed-forward's width: before and after GELU, and the inner norm.
    """
    width, ffn = config.dimensions.embed_dim, config.dimensions.ffn_dim
    scaled = by.product_bytes if _keeps_attention_scores(by) else 0  # queries
    norms, qkv = 2 * 4 + 2 * by.product_bytes, 3 * by.product_bytes
    attention, inner_norm = by.product_bytes, by.product_bytes
    stream = norms + qkv + scaled + attention + inner_norm
    return stream * width + 3 * by.product_bytes * ffn


def _keeps_attention_scores(by: ElementSize) -> bool:
    """Does attention keep its scores? `network.MultiwayLayer.attend` uses plain products on a CPU in 16 bits."""
    return by.is_cpu and by.product_bytes == 2


def _count_parameters(config: ModelConfig, task: str, vocab: int, answers: int) -> tuple[int, int, int]:
    """Numbers of all parameters, of those that never learn (`unused_parameters`), and of those in products."""
    width, _, layers, ffn = config.dimensions
    # Weights of one branch: q, k, v and output, and both layers of the feed-forward network.
    in_branch = 4 * width**2 + 2 * width * ffn
    # The same without q, k, v and the first norm, vectors included.
    after_attention = width**2 + 2 * width * ffn + 6 * width + 3 * ffn
    patch = 3 * config.patch_size**2 * width
    positions = config.num_patches + 1 + POSITION_OFFSET + TEXT_POSITIONS
    # VQA: pooler D², first layer 2 D², answers 2 D C. Captions: D V.
    head = 3 * width**2 + 2 * width * answers if task == "vqa" else width * vocab
    head_vectors = 9 * width + answers if task == "vqa" else 4 * width + vocab
    products = 2 * layers * in_branch + patch + head
    # Of a branch: three norms (6 D), biases (5 D), a norm and a bias of the feed-forward's width (3 ffn);
    # beside the layers: mask token, class token, and the bias of the patches' projection (3 D).
    vectors = 2 * layers * (11 * width + 3 * ffn) + head_vectors + 3 * width
    # The mask token and one branch after the last attention; of captions the image's final norm too.
    unused = width + after_attention + (0 if task == "vqa" else 2 * width)
    return products + vectors + (vocab + positions) * width, unused, products


def _text_table_rows(config: ModelConfig) -> int:
    """Rows of the text table: as set, as the tokenizer needs, or as published."""
    if config.vocab_size is not None or config.tokenizer is None:
        return config.vocab_size or BEIT3_VOCAB_SIZE
    try:
        path = find_tokenizer(config.tokenizer)
        return sentencepiece_model.load_spm_processor(read_bytes(path), str(path)).get_piece_size() + 2
    except KovqaError:
        return BEIT3_VOCAB_SIZE


COUNT_STEP_MEMORY: CountStepMemory[ModelConfig] = step_memory
