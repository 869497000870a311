"""Memory of a BEiT-3 step, counted tensor by tensor from its sizes. Imports nothing heavy."""

from __future__ import annotations

from math import ceil

from kovqa_core.download.find_asset import find_asset
from kovqa_core.errors import KovqaError
from kovqa_core.files import read_bytes
from kovqa_core.models.beit3.config import POSITION_OFFSET, TEXT_POSITIONS, ModelConfig
from kovqa_core.models.memory import TYPICAL_CLASSES, CountStepMemory, ElementSize, StepMemory
from kovqa_core.tokenizer import sentencepiece_model

BEIT3_VOCAB_SIZE = 64010  # where there is no tokenizer to ask


def step_memory(config: ModelConfig, task: str, classes: int | None, by: ElementSize) -> StepMemory:
    """What one training step holds, with texts of `max_text` tokens.

    Args:
        config: of the model.
        task: vqa or caption.
        classes: of the index; None: not known.
        by: bytes of numbers.
    """
    vocab, answers = _text_table_rows(config), config.num_classes or classes or TYPICAL_CLASSES
    total, resting, products = _count_parameters(config, task, vocab, answers)
    size, text, picture = config.sizes, config.max_text, config.patches + 1
    wide, scores = size.embed_dim, by.product * size.num_heads if _keeps_attention_scores(by) else 0
    token = _bytes_per_token(config, by)
    ends = (4 + 3 * by.product) * wide  # the last layer: stream, norm, keys and values of what is not read
    between = 4 * (picture + text) * wide  # the stream from layer to layer
    if task == "vqa":
        layer = (picture + text) * token + scores * (picture + text) ** 2
        kept = (size.num_layers - 1) * layer + (picture + text) * ends
        logits = 16 * answers  # in 32 bits: scores, labels, and two gradients
    else:
        joined = 2 * by.product * (picture + text) * wide  # the picture's keys and values before the words'
        layer = (picture + text) * token + joined + scores * (picture**2 + text * (picture + text))
        kept = size.num_layers * layer - picture * (token - ends + scores * picture)
        between += 2 * by.product * picture * wide  # the picture's keys and values
        logits = 20 * vocab * ceil(config.caption.mask * text)
    stem = 3 * config.image_size**2 * (4 + by.product)  # pixels, and cut into patches
    return StepMemory(
        weights=4.0 * total,
        parameters=total,
        learned=total - resting,
        casts=0.0 if by.product == 4 else 2.0 * products,
        kept=kept + stem,
        checkpointed=size.num_layers * between + stem,
        layer=layer,
        logits=logits,
        temporary=2.0 * by.product * picture * size.ffn_dim,
    )


def _bytes_per_token(config: ModelConfig, by: ElementSize) -> int:
    """Kept of one token in one layer.

    In the width of the stream: what both norms read and give, q, k and v, what attention gave, and its
    inner norm; in the width of the feed-forward part: before and behind GELU, and the inner norm.
    """
    wide, ffn = config.sizes.embed_dim, config.sizes.ffn_dim
    scaled = by.product if _keeps_attention_scores(by) else 0  # queries
    raised = by.norm if by.norm != by.product else 0  # attention's result, for its norm
    stream = 2 * 4 + 2 * by.product + 3 * by.product + scaled + by.product + raised + by.product
    return stream * wide + (2 * by.product + by.norm) * ffn


def _keeps_attention_scores(by: ElementSize) -> bool:
    """Does attention keep its scores? In `net.Layer.attend` a CPU in 16 bits takes plain products."""
    return by.cpu and by.product == 2


def _count_parameters(config: ModelConfig, task: str, vocab: int, answers: int) -> tuple[int, int, int]:
    """Numbers of all parameters, of those at rest (`net.unread`), and of those in products."""
    wide, _, layers, ffn = config.sizes
    in_branch = 4 * wide**2 + 2 * wide * ffn
    after_attention = wide**2 + 2 * wide * ffn + 6 * wide + 3 * ffn
    patch = 3 * config.patch_size**2 * wide
    places = config.patches + 1 + POSITION_OFFSET + TEXT_POSITIONS
    head = 3 * wide**2 + 2 * wide * answers if task == "vqa" else wide * vocab
    ends = 9 * wide + answers if task == "vqa" else 4 * wide + vocab
    products = 2 * layers * in_branch + patch + head
    vectors = 2 * layers * (11 * wide + 3 * ffn) + ends + 3 * wide
    resting = wide + after_attention + (0 if task == "vqa" else 2 * wide)
    return products + vectors + (vocab + places) * wide, resting, products


def _text_table_rows(config: ModelConfig) -> int:
    """Rows of the text table: as stated, as the tokenizer asks for, or as published."""
    if config.vocab_size is not None or config.tokenizer is None:
        return config.vocab_size or BEIT3_VOCAB_SIZE
    try:
        path = find_asset(config.tokenizer, "tokenizer")
        return sentencepiece_model.load_spm_processor(read_bytes(path), str(path)).get_piece_size() + 2
    except KovqaError:
        return BEIT3_VOCAB_SIZE


COUNT_STEP_MEMORY: CountStepMemory[ModelConfig] = step_memory
