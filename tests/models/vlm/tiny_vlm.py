"""Nine tiny models of today's image-text-to-text classes: real classes, random weights, made offline.

Each has the marks of its kind: its own chat template, placeholder for pictures, picture processor and
shape of pixel tensors. Under half a million parameters each.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from kovqa_core.models.vlm.hf_libraries import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WIDTH, HEADS, LAYERS = 32, 2, 2
TEXT = {
    "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS, "max_position_embeddings": 512,
}  # fmt: skip
BROAD = {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 16,
    "num_key_value_heads": 16, "head_dim": 16,
}  # fmt: skip
SIGHT = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
}
QWEN_SIGHT = {
    "depth": LAYERS, "hidden_size": WIDTH, "intermediate_size": 64, "num_heads": HEADS, "patch_size": 8,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": WIDTH,
}  # fmt: skip
QWEN_PICTURES = {
    "patch_size": 8, "merge_size": 2, "temporal_patch_size": 2,
    "size": {"shortest_edge": 32 * 32, "longest_edge": 48 * 48},
}  # fmt: skip

# ------------------------------------------------------------------------------ chat templates

_CONTENT = (
    "{% for part in message.content %}{% if part.type == 'image' %}PICTURE"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}"
)
_THINKING = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"


def chatml(picture: str, thinks: bool = False) -> str:
    """Qwen's form; a thinking model puts an empty thought before its answer."""
    thought = _THINKING if thinks else ""
    return (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        f"{{% if message.role == 'assistant' %}}{thought}{{% endif %}}"
        + _CONTENT.replace("PICTURE", picture)
        + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        + thought
        + "{% endif %}"
    )


VICUNA = (
    "A chat. {% for message in messages %}{% if message.role == 'user' %}USER: "
    + _CONTENT.replace("PICTURE", "<image>\n")
    + " {% else %}ASSISTANT: "
    + _CONTENT.replace("PICTURE", "")
    + "</s>{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message.role == 'assistant' else message.role }}\n"
    + _CONTENT.replace("PICTURE", "<start_of_image>")
    + "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
EXAONE = (
    "{% for message in messages %}<|{{ message.role }}|>\n"
    f"{{% if message.role == 'assistant' %}}{_THINKING}{{% endif %}}"
    + _CONTENT.replace("PICTURE", "<vision><|image_pad|></vision>")
    + "<|endofturn|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n"
    + _THINKING
    + "{% endif %}"
)
_QWEN_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
_QWEN_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip


# ---------------------------------------------------------------------------------- tokenizer


@cache
def _merges(texts: tuple[str, ...]) -> Tokenizer:
    """A byte-level BPE of 400 pieces trained on these texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def tokenizer_of(texts: tuple[str, ...], special: list[str], end: str, **names: Any) -> Any:
    """A Hugging Face tokenizer with these special tokens."""
    tokenizer = Tokenizer.from_str(_merges(texts).to_str())
    tokenizer.add_special_tokens(special)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, padding_side="left", **{"pad_token": special[0], **names}
    )


# ------------------------------------------------------------------------------------- models


def _llava(texts: tuple[str, ...]) -> tuple[Any, Any]:
    special = ["<pad>", "<s>", "</s>", "<image>"]
    tokenizer = tokenizer_of(texts, special, "</s>", bos_token="<s>")
    pictures = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    config = hf.LlavaConfig(
        text_config=hf.LlamaConfig(vocab_size=len(tokenizer), **TEXT),
        vision_config=hf.CLIPVisionConfig(image_size=32, patch_size=8, **SIGHT),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=16,
    )  # fmt: skip
    processor = hf.LlavaProcessor(
        pictures, tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=VICUNA,
    )  # fmt: skip
    return config, processor


def _llava_onevision(texts: tuple[str, ...]) -> tuple[Any, Any]:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    tokenizer = tokenizer_of(texts, special, "<|im_end|>")
    grid = [[32, 32], [32, 64], [64, 32]]
    config = hf.LlavaOnevisionConfig(
        text_config=hf.Qwen2Config(vocab_size=len(tokenizer), **TEXT),
        vision_config=hf.SiglipVisionConfig(image_size=32, patch_size=8, vision_use_head=False, **SIGHT),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
    )
    pictures = hf.LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=grid)
    processor = hf.LlavaOnevisionProcessor(
        pictures, tokenizer, hf.LlavaOnevisionVideoProcessor(size={"height": 32, "width": 32}),
        num_image_tokens=16, vision_feature_select_strategy="full", chat_template=chatml("<image>\n"),
    )  # fmt: skip
    return config, processor


def _ids(tokenizer: Any) -> dict[str, int]:
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def _vision_ids(tokenizer: Any) -> dict[str, int]:
    names = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    return _ids(tokenizer) | {n: tokenizer.convert_tokens_to_ids(token) for n, token in names.items()}


def _qwen2_5_vl(texts: tuple[str, ...]) -> tuple[Any, Any]:
    tokenizer = tokenizer_of(texts, _QWEN_TOKENS, "<|im_end|>")
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    config = hf.Qwen2_5_VLConfig(
        text_config={"vocab_size": len(tokenizer), "rope_parameters": rope, **TEXT},
        vision_config={**QWEN_SIGHT, "window_size": 32, "fullatt_block_indexes": [1]},
        **_vision_ids(tokenizer),
    )
    processor = hf.Qwen2_5_VLProcessor(
        hf.Qwen2VLImageProcessorPil(**QWEN_PICTURES), tokenizer, hf.Qwen2VLVideoProcessor(**QWEN_PICTURES),
        chat_template=chatml(_QWEN_PICTURE),
    )  # fmt: skip
    return config, processor


def _qwen3_vl(texts: tuple[str, ...]) -> tuple[Any, Any]:
    tokenizer = tokenizer_of(texts, _QWEN_TOKENS, "<|im_end|>")
    rope = {
        "rope_type": "default",
        "mrope_section": [2, 3, 3],
        "rope_theta": 10000.0,
        "mrope_interleaved": True,
    }
    config = hf.Qwen3VLConfig(
        text_config={"vocab_size": len(tokenizer), "head_dim": 16, "rope_parameters": rope, **TEXT},
        vision_config={**QWEN_SIGHT, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        **_vision_ids(tokenizer),
    )
    processor = hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessorPil(**QWEN_PICTURES), tokenizer, hf.Qwen3VLVideoProcessor(**QWEN_PICTURES),
        chat_template=chatml(_QWEN_PICTURE),
    )  # fmt: skip
    return config, processor


def _qwen3_5(texts: tuple[str, ...]) -> tuple[Any, Any]:
    tokenizer = tokenizer_of(texts, _QWEN_TOKENS, "<|im_end|>")
    rope = {
        "rope_type": "default", "mrope_section": [1, 1, 0], "rope_theta": 10000.0, "mrope_interleaved": True,
        "partial_rotary_factor": 0.25,
    }  # fmt: skip
    linear = {
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "layer_types": ["linear_attention", "full_attention"],
    }  # fmt: skip
    config = hf.Qwen3_5Config(
        text_config={
            "vocab_size": len(tokenizer),
            "head_dim": 16,
            "rope_parameters": rope,
            **linear,
            **TEXT,
        },
        vision_config={**QWEN_SIGHT, "num_position_embeddings": 64},
        **_vision_ids(tokenizer),
    )
    processor = hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessorPil(**QWEN_PICTURES), tokenizer, hf.Qwen3VLVideoProcessor(**QWEN_PICTURES),
        chat_template=chatml(_QWEN_PICTURE, thinks=True),
    )  # fmt: skip
    return config, processor


def _gemma3(texts: tuple[str, ...]) -> tuple[Any, Any]:
    marks = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", *marks.values()]
    tokenizer = tokenizer_of(texts, special, "<eos>", bos_token="<bos>", extra_special_tokens=marks)
    config = hf.Gemma3Config(
        text_config=hf.Gemma3TextConfig(
            vocab_size=len(tokenizer), head_dim=16, query_pre_attn_scalar=16, sliding_window=24,
            layer_types=["sliding_attention", "full_attention"], pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, **TEXT,
        ),
        vision_config=hf.SiglipVisionConfig(image_size=32, patch_size=8, vision_use_head=False, **SIGHT),
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.boi_token_id, eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )  # fmt: skip
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessorPil(size={"height": 32, "width": 32}), tokenizer, chat_template=GEMMA,
        image_seq_length=4,
    )  # fmt: skip
    return config, processor


def _internvl(texts: tuple[str, ...]) -> tuple[Any, Any]:
    marks = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *marks.values()]
    tokenizer = tokenizer_of(texts, special, "<|im_end|>", extra_special_tokens=marks)
    config = hf.InternVLConfig(
        text_config=hf.Qwen2Config(vocab_size=len(tokenizer), **TEXT),
        vision_config=hf.InternVLVisionConfig(image_size=[32, 32], patch_size=[8, 8], **SIGHT),
        image_token_id=tokenizer.context_image_token_id, image_seq_length=4,
    )  # fmt: skip
    pictures = hf.GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=2
    )
    processor = hf.InternVLProcessor(
        pictures, tokenizer, hf.InternVLVideoProcessor(size={"height": 32, "width": 32}), image_seq_length=4,
        chat_template=chatml("<IMG_CONTEXT>\n"),
    )  # fmt: skip
    return config, processor


def _exaone4_5(texts: tuple[str, ...]) -> tuple[Any, Any]:
    special = [
        "[PAD]", "[BOS]", "<|user|>", "<|assistant|>", "<|endofturn|>", "<vision>", "</vision>",
        "<|image_pad|>", "<|video_pad|>",
    ]  # fmt: skip
    tokenizer = tokenizer_of(texts, special, "<|endofturn|>", bos_token="[BOS]")
    config = hf.Exaone4_5_Config(
        text_config=hf.Exaone4Config(
            vocab_size=len(tokenizer), sliding_window=24, sliding_window_pattern=2,
            layer_types=["sliding_attention", "full_attention"], bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, **TEXT,
        ),
        vision_config={
            **QWEN_SIGHT, "num_key_value_heads": 1, "window_size": 32, "fullatt_block_indexes": [1],
        },
        **_ids(tokenizer),
    )  # fmt: skip
    processor = hf.Exaone4_5_Processor(
        hf.Qwen2VLImageProcessorPil(**QWEN_PICTURES), tokenizer, hf.Qwen2VLVideoProcessor(**QWEN_PICTURES),
        chat_template=EXAONE,
    )  # fmt: skip
    return config, processor


def _hyperclovax(texts: tuple[str, ...]) -> tuple[Any, Any]:
    tokenizer = tokenizer_of(texts, _QWEN_TOKENS, "<|im_end|>")
    config = hf.HyperCLOVAXVisionV2Config(
        text_config=hf.HyperCLOVAXConfig(
            vocab_size=len(tokenizer), attention_multiplier=0.25, bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id, **TEXT,
        ),
        vision_config=hf.Qwen2_5_VLVisionConfig(
            **{**QWEN_SIGHT, "window_size": 32, "fullatt_block_indexes": [1]}
        ),
        **_ids(tokenizer),
    )  # fmt: skip
    processor = hf.HyperCLOVAXVisionV2Processor(
        hf.Qwen2VLImageProcessorPil(**QWEN_PICTURES), tokenizer, hf.Qwen2VLVideoProcessor(**QWEN_PICTURES),
        chat_template=chatml(_QWEN_PICTURE, thinks=True),
    )  # fmt: skip
    return config, processor


KINDS = {
    "llava": _llava, "llava_onevision": _llava_onevision, "qwen2_5_vl": _qwen2_5_vl, "qwen3_vl": _qwen3_vl,
    "qwen3_5": _qwen3_5, "gemma3": _gemma3, "internvl": _internvl, "exaone4_5": _exaone4_5,
    "hyperclovax_vision_v2": _hyperclovax,
}  # fmt: skip


def write_tiny(kind: str, folder: Path, texts: tuple[str, ...], broad: bool = False) -> Path:
    """A model folder as the Hub has them: configuration, weights, tokenizer, processor, template.

    With `broad` its language model is large enough to tell memory by.
    """
    config, processor = KINDS[kind](texts)
    if broad:
        for name, value in BROAD.items():
            setattr(config.text_config, name, value)
        if hasattr(config.text_config, "layer_types"):
            config.text_config.layer_types = ["full_attention"] * BROAD["num_hidden_layers"]
        if hasattr(config.vision_config, "out_hidden_size"):
            config.vision_config.out_hidden_size = BROAD["hidden_size"]
    torch.manual_seed(0)
    model = hf.AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # wide, so that answers are decisive
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
    ends = {processor.tokenizer.eos_token_id}
    if kind == "gemma3":
        ends.add(processor.tokenizer.convert_tokens_to_ids("<end_of_turn>"))
    model.generation_config = hf.GenerationConfig(
        eos_token_id=sorted(ends), pad_token_id=processor.tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
