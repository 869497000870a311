"""A small vision language model with random weights, made of an index's own text: no file is fetched.

LLaVA's architecture, with a CLIP vision tower and a Llama, each two or three layers of width 96: what a CPU
trains in minutes, to try the whole way of a large one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from kovqa_core.index.reader import IndexSplit
from kovqa_core.models.vlm.hf_libraries import transformers
from kovqa_core.models.vlm.hf_types import HfProcessor, HfTokenizer
from kovqa_core.settings.recipe import DataSettings

TINY_IMAGE_SIZE, TINY_PATCH_SIZE = 96, 32  # pixels: nine patches per image
_TINY_VOCAB_SIZE = 600  # of the tokenizer, the 256 bytes among them
_MAX_TOKENIZER_ROWS = 10_000  # of an index, at most, to train the tokenizer on
_PAD_TOKEN, _END_TOKEN, _IMAGE_TOKEN, _USER_TOKEN, _MODEL_TOKEN = (
    "<pad>",
    "<end>",
    "<image>",
    "<user>",
    "<model>",
)
# Layers this narrow need larger initial weights than transformers' 0.02: with those, images go unnoticed.
_LAYER_DIMENSIONS = {
    "hidden_size": 96,
    "num_attention_heads": 6,
    "intermediate_size": 384,
    "initializer_range": 0.1,
}
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<user>' if message.role == 'user' else '<model>' }}"
    "{% for part in message.content %}{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}"
    "<end>{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
)


def iterate_index_texts(data: DataSettings) -> Iterator[str]:
    """Questions and answers of some training rows of an index, evenly spaced: similar rows stand together."""
    rows = IndexSplit(Path(str(data.index)) / "train.jsonl")
    for number in range(0, len(rows), 1 + len(rows) // _MAX_TOKENIZER_ROWS):
        yield from filter(None, (rows[number].context, rows[number].question, *rows[number].answers))


def write_random_base(folder: Path, texts: Iterable[str], seed: int) -> None:
    """Write a model folder as the Hub has them: configuration, weights, tokenizer, processor, template.

    Args:
        folder: where.
        texts: what the tokenizer is trained on.
        seed: of the weights.
    """
    tokenizer = _train_byte_tokenizer(texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = transformers.LlavaForConditionalGeneration(_tiny_config(tokenizer))
    net.generation_config = transformers.GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    net.save_pretrained(folder)
    _tiny_processor(tokenizer).save_pretrained(folder)


def _train_byte_tokenizer(texts: Iterable[str]) -> HfTokenizer:
    """A BPE over bytes, which can write any text, with a token for each mark of the template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()  # all 256 bytes: those that no text has are needed, too
    trainer = trainers.BpeTrainer(vocab_size=_TINY_VOCAB_SIZE, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([_PAD_TOKEN, _END_TOKEN, _IMAGE_TOKEN, _USER_TOKEN, _MODEL_TOKEN])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=_END_TOKEN, pad_token=_PAD_TOKEN
    )


def _tiny_processor(tokenizer: HfTokenizer) -> HfProcessor:
    square = {"height": TINY_IMAGE_SIZE, "width": TINY_IMAGE_SIZE}
    image_processor = transformers.CLIPImageProcessorPil(size=square, do_center_crop=False)
    return transformers.LlavaProcessor(
        image_processor, tokenizer, patch_size=TINY_PATCH_SIZE, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=_CHAT_TEMPLATE,
    )  # fmt: skip


def _tiny_config(tokenizer: HfTokenizer) -> object:
    return transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            image_size=TINY_IMAGE_SIZE, patch_size=TINY_PATCH_SIZE, num_hidden_layers=2, **_LAYER_DIMENSIONS
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=len(tokenizer), num_hidden_layers=3, **_LAYER_DIMENSIONS
        ),
        vision_feature_layer=-1,
        image_token_index=tokenizer.convert_tokens_to_ids(_IMAGE_TOKEN),
        image_seq_length=(TINY_IMAGE_SIZE // TINY_PATCH_SIZE) ** 2,
    )
