"""Nine tiny models of today's image-text-to-text classes: real classes, random weights, made offline.

Each has what is particular to its type: its own chat template, placeholder for images, image processor and
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
WIDE = {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 16,
    "num_key_value_heads": 16, "head_dim": 16,
}  # fmt: skip
VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
}
QWEN_VISION = {
    "depth": LAYERS, "hidden_size": WIDTH, "intermediate_size": 64, "num_heads": HEADS, "patch_size": 8,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": WIDTH,
}  # fmt: skip
QWEN_IMAGES = {
    "patch_size": 8, "merge_size": 2, "temporal_patch_size": 2,
    "size": {"shortest_edge": 32 * 32, "longest_edge": 48 * 48},
}  # fmt: skip

# ------------------------------------------------------------------------------ chat templates

_CONTENT = (
    "{% for part in message.content %}{% if part.type == 'image' %}IMAGE"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}"
)
_THINKING = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"


def chatml(image: str, *, thinks: bool = False) -> str:
    """Qwen's form; a thinking model puts an empty thought before its answer."""
    thought = _THINKING if thinks else ""
    return (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        f"{{% if message.role == 'assistant' %}}{thought}{{% endif %}}"
        + _CONTENT.replace("IMAGE", image)
        + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        + thought
        + "{% endif %}"
    )


VICUNA = (
    "A chat. {% for message in messages %}{% if message.role == 'user' %}USER: "
    + _CONTENT.replace("IMAGE", "<image>\n")
    + " {% else %}ASSISTANT: "
    + _CONTENT.replace("IMAGE", "")
    + "</s>{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message.role == 'assistant' else message.role }}\n"
    + _CONTENT.replace("IMAGE", "<start_of_image>")
    + "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
EXAONE = (
    "{% for message in messages %}<|{{ message.role }}|>\n"
    f"{{% if message.role == 'assistant' %}}{_THINKING}{{% endif %}}"
    + _CONTENT.replace("IMAGE", "<vision><|image_pad|></vision>")
    + "<|endofturn|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n"
    + _THINKING
    + "{% endif %}"
)
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_QWEN_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip


# ---------------------------------------------------------------------------------- tokenizer


@cache
def _train_bpe(texts: tuple[str, ...]) -> Tokenizer:
    """A byte-level BPE of 400 tokens trained on these texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def make_tokenizer(texts: tuple[str, ...], special: list[str], end: str, **names: Any) -> Any:
    """A Hugging Face tokenizer with these special tokens."""
    tokenizer = Tokenizer.from_str(_train_bpe(texts).to_str())
    tokenizer.add_special_tokens(special)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, padding_side="left", **{"pad_token": special[0], **names}
    )


# ------------------------------------------------------------------------------------- models


def _llava(texts: tuple[str, ...]) -> tuple[Any, Any]:
    special = ["<pad>", "<s>", "</s>", "<image>"]
    tokenizer = make_tokenizer(texts, special, "</s>", bos_token="<s>")
    image_processor = hf.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    config = hf.LlavaConfig(
        text_config=hf.LlamaConfig(vocab_size=len(tokenizer), **TEXT),
        vision_config=hf.CLIPVisionConfig(image_size=32, patch_size=8, **VISION),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=16,
    )  # fmt: skip
    processor = hf.LlavaProcessor(
        image_processor, tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=VICUNA,
    )  # fmt: skip
    return config, processor


def _llava_onevision(texts: tuple[str, ...]) -> tuple[Any, Any]:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    tokenizer = make_tokenizer(texts, special, "<|im_end|>")
    grid = [[32, 32], [32, 64], [64, 32]]
    config = hf.LlavaOnevisionConfig(
        text_config=hf.Qwen2Config(vocab_size=len(tokenizer), **TEXT),
        vision_config=hf.SiglipVisionConfig(image_size=32, patch_size=8, vision_use_head=False, **VISION),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
    )
    image_processor = hf.LlavaOnevisionImageProcessorPil(
        size={"height": 32, "width": 32}, image_grid_pinpoints=grid
    )
    processor = hf.LlavaOnevisionProcessor(
        image_processor, tokenizer, hf.LlavaOnevisionVideoProcessor(size={"height": 32, "width": 32}),
        num_image_tokens=16, vision_feature_select_strategy="full", chat_template=chatml("<image>\n"),
    )  # fmt: skip
    return config, processor


def _image_token_ids(tokenizer: Any) -> dict[str, int]:
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def _vision_token_ids(tokenizer: Any) -> dict[str, int]:
    names = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    return _image_token_ids(tokenizer) | {
        n: tokenizer.convert_tokens_to_ids(token) for n, token in names.items()
    }


def _qwen2_5_vl(texts: tuple[str, ...]) -> tuple[Any, Any]:
    tokenizer = make_tokenizer(texts, _QWEN_TOKENS, "<|im_end|>")
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    config = hf.Qwen2_5_VLConfig(
        text_config={"vocab_size": len(tokenizer), "rope_parameters": rope, **TEXT},
        vision_config={**QWEN_VISION, "window_size": 32, "fullatt_block_indexes": [1]},
        **_vision_token_ids(tokenizer),
    )
    processor = hf.Qwen2_5_VLProcessor(
        hf.Qwen2VLImageProcessorPil(**QWEN_IMAGES), tokenizer, hf.Qwen2VLVideoProcessor(**QWEN_IMAGES),
        chat_template=chatml(_QWEN_IMAGE),
    )  # fmt: skip
    return config, processor


def _qwen3_vl(texts: tuple[str, ...]) -> tuple[Any, Any]:
    tokenizer = make_tokenizer(texts, _QWEN_TOKENS, "<|im_end|>")
    rope = {
        "rope_type": "default",
        "mrope_section": [2, 3, 3],
        "rope_theta": 10000.0,
        "mrope_interleaved": True,
    }
    config = hf.Qwen3VLConfig(
        text_config={"vocab_size": len(tokenizer), "head_dim": 16, "rope_parameters": rope, **TEXT},
        vision_config={**QWEN_VISION, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        **_vision_token_ids(tokenizer),
    )
    processor = hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessorPil(**QWEN_IMAGES), tokenizer, hf.Qwen3VLVideoProcessor(**QWEN_IMAGES),
        chat_template=chatml(_QWEN_IMAGE),
    )  # fmt: skip
    return config, processor


def _qwen3_5(texts: tuple[str, ...]) -> tuple[Any, Any]:
    tokenizer = make_tokenizer(texts, _QWEN_TOKENS, "<|im_end|>")
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
        vision_config={**QWEN_VISION, "num_position_embeddings": 64},
        **_vision_token_ids(tokenizer),
    )
    processor = hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessorPil(**QWEN_IMAGES), tokenizer, hf.Qwen3VLVideoProcessor(**QWEN_IMAGES),
        chat_template=chatml(_QWEN_IMAGE, thinks=True),
    )  # fmt: skip
    return config, processor


def _gemma3(texts: tuple[str, ...]) -> tuple[Any, Any]:
    special_tokens = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", *special_tokens.values()]
    tokenizer = make_tokenizer(
        texts, special, "<eos>", bos_token="<bos>", extra_special_tokens=special_tokens
    )
    config = hf.Gemma3Config(
        text_config=hf.Gemma3TextConfig(
            vocab_size=len(tokenizer), head_dim=16, query_pre_attn_scalar=16, sliding_window=24,
            layer_types=["sliding_attention", "full_attention"], pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, **TEXT,
        ),
        vision_config=hf.SiglipVisionConfig(image_size=32, patch_size=8, vision_use_head=False, **VISION),
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
    special_tokens = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special_tokens.values()]
    tokenizer = make_tokenizer(texts, special, "<|im_end|>", extra_special_tokens=special_tokens)
    config = hf.InternVLConfig(
        text_config=hf.Qwen2Config(vocab_size=len(tokenizer), **TEXT),
        vision_config=hf.InternVLVisionConfig(image_size=[32, 32], patch_size=[8, 8], **VISION),
        image_token_id=tokenizer.context_image_token_id, image_seq_length=4,
    )  # fmt: skip
    image_processor = hf.GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=2
    )
    processor = hf.InternVLProcessor(
        image_processor, tokenizer, hf.InternVLVideoProcessor(size={"height": 32, "width": 32}), image_seq_length=4,
        chat_template=chatml("<IMG_CONTEXT>\n"),
    )  # fmt: skip
    return config, processor


def _exaone4_5(texts: tuple[str, ...]) -> tuple[Any, Any]:
    special = [
        "[PAD]", "[BOS]", "<|user|>", "<|assistant|>", "<|endofturn|>", "<vision>", "</vision>",
        "<|image_pad|>", "<|video_pad|>",
    ]  # fmt: skip
    tokenizer = make_tokenizer(texts, special, "<|endofturn|>", bos_token="[BOS]")
    config = hf.Exaone4_5_Config(
        text_config=hf.Exaone4Config(
            vocab_size=len(tokenizer), sliding_window=24, sliding_window_pattern=2,
            layer_types=["sliding_attention", "full_attention"], bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, **TEXT,
        ),
        vision_config={
            **QWEN_VISION, "num_key_value_heads": 1, "window_size": 32, "fullatt_block_indexes": [1],
        },
        **_image_token_ids(tokenizer),
    )  # fmt: skip
    processor = hf.Exaone4_5_Processor(
        hf.Qwen2VLImageProcessorPil(**QWEN_IMAGES), tokenizer, hf.Qwen2VLVideoProcessor(**QWEN_IMAGES),
        chat_template=EXAONE,
    )  # fmt: skip
    return config, processor


def _hyperclovax(texts: tuple[str, ...]) -> tuple[Any, Any]:
    tokenizer = make_tokenizer(texts, _QWEN_TOKENS, "<|im_end|>")
    config = hf.HyperCLOVAXVisionV2Config(
        text_config=hf.HyperCLOVAXConfig(
            vocab_size=len(tokenizer), attention_multiplier=0.25, bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id, **TEXT,
        ),
        vision_config=hf.Qwen2_5_VLVisionConfig(
            **{**QWEN_VISION, "window_size": 32, "fullatt_block_indexes": [1]}
        ),
        **_image_token_ids(tokenizer),
    )  # fmt: skip
    processor = hf.HyperCLOVAXVisionV2Processor(
        hf.Qwen2VLImageProcessorPil(**QWEN_IMAGES), tokenizer, hf.Qwen2VLVideoProcessor(**QWEN_IMAGES),
        chat_template=chatml(_QWEN_IMAGE, thinks=True),
    )  # fmt: skip
    return config, processor


MODEL_TYPES = {
    "llava": _llava, "llava_onevision": _llava_onevision, "qwen2_5_vl": _qwen2_5_vl, "qwen3_vl": _qwen3_vl,
    "qwen3_5": _qwen3_5, "gemma3": _gemma3, "internvl": _internvl, "exaone4_5": _exaone4_5,
    "hyperclovax_vision_v2": _hyperclovax,
}  # fmt: skip


def write_tiny_vlm(model_type: str, folder: Path, texts: tuple[str, ...], *, wide: bool = False) -> Path:
    """A model folder as the Hub has them: configuration, weights, tokenizer, processor, template.

    With `wide` its language model is large enough to tell memory by.
    """
    config, processor = MODEL_TYPES[model_type](texts)
    if wide:
        for name, value in WIDE.items():
            setattr(config.text_config, name, value)
        if hasattr(config.text_config, "layer_types"):
            config.text_config.layer_types = ["full_attention"] * WIDE["num_hidden_layers"]
        if hasattr(config.vision_config, "out_hidden_size"):
            config.vision_config.out_hidden_size = WIDE["hidden_size"]
    torch.manual_seed(0)
    model = hf.AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # widely spread, so that answers are decisive
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
    eos_token_ids = {processor.tokenizer.eos_token_id}
    if model_type == "gemma3":
        eos_token_ids.add(processor.tokenizer.convert_tokens_to_ids("<end_of_turn>"))
    model.generation_config = hf.GenerationConfig(
        eos_token_id=sorted(eos_token_ids), pad_token_id=processor.tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
