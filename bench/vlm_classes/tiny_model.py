"""A tiny random model folder of any image-text-to-text class of transformers: made offline, nothing is fetched.

The class's own default configuration is scaled down by the names of its fields, its own processor is made with a
small tokenizer that has the tokens which that processor asks for. What is particular to a class stands in
`class_facts.py`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from kovqa_core.models.vlm.hf_libraries import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from bench.vlm_classes.class_facts import CLASS_FACTS
from bench.vlm_classes.facts_form import ClassFacts

_auto = import_module("transformers.models.auto.modeling_auto")
CLASS_NAMES: dict[str, str] = dict(_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)  # model_type -> class

WIDTH, FFN_WIDTH, HEADS, HEAD_WIDTH, LAYERS = 32, 64, 2, 16, 2
IMAGE_SIDE, PATCH_SIDE = 32, 8  # pixels
_VOCAB_SIZE, _BYTES = 400, 256

# Name of a configuration's field, as a whole -> its tiny value; numbers and lists of numbers only.
_TINY_FIELDS: tuple[tuple[str, object], ...] = (
    (r"(\w*_)?hidden_size|d_model|embed_dim|\w*projection_dim|word_embed_proj_dim|output_dim|projector_\w+put_dim", WIDTH),
    (r"(\w*_)?intermediate_size(_mlp)?|(encoder_|decoder_)?ffn_dim|mlp_dim|d_ff|share_expert_dim", FFN_WIDTH),
    (r"(\w*_)?num_hidden_layers|depth|num_layers|num_decoder_layers|encoder_layers|decoder_layers|layers|n_layers", LAYERS),
    (r"(\w*_)?num_attention_heads|num_heads|(\w*_)?attention_heads|n_heads", HEADS),
    (r"(\w*_)?num_key_value_heads", HEADS),
    (r"(\w*_)?head_dim|d_kv|v_head_dim|qk_nope_head_dim", HEAD_WIDTH),
    (r"qk_rope_head_dim", HEAD_WIDTH // 2),
    (r"q_lora_rank|kv_lora_rank", WIDTH),
    (r"image_size", IMAGE_SIDE),
    (r"patch_size", PATCH_SIDE),
    (r"num_experts|n_routed_experts|num_local_experts|moe_num_experts", 4),
    (r"num_experts_per_tok|moe_topk|moe_k", 2),
    (r"n_shared_experts|moe_num_shared_experts|n_group|topk_group", 1),
    (r"first_k_dense_replace", 1),
    (r"attention_chunk_size", 24),
    (r"max_position_embeddings", 512),
    (r"query_pre_attn_scalar", HEAD_WIDTH),
    (r"vision_feature_layer", -1),
    (r"deepstack_visual_indexes", [0]),
    (r"fullatt_block_indexes", [1]),
    (r"window_size", IMAGE_SIDE),
    (r"num_position_embeddings", 64),
    (r"mm_tokens_per_image", 4),
    (r"image_grid_pinpoints", [[32, 32], [32, 64], [64, 32]]),
    (r"linear_num_key_heads|linear_num_value_heads", HEADS),
    (r"linear_key_head_dim|linear_value_head_dim", 8),
)  # fmt: skip
_LAYER_LISTS = ("layer_types", "mlp_layer_types")


# ------------------------------------------------------------------------------ configuration


def tiny_config(model_type: str, facts: ClassFacts, processor: Any) -> Any:
    """The class's default configuration, scaled down."""
    default = hf.AutoConfig.for_model(model_type)
    values = _scaled(default.to_dict(), processor)
    for path, value in facts.config.items():
        *parents, name = path.split(".")
        section = values
        for parent in parents:
            section = section.setdefault(parent, {})
        if value is None:
            section.pop(name, None)
        else:
            section[name] = _with_token_ids(value, processor.tokenizer)
    values.pop("architectures", None)
    return type(default).from_dict(values)


def _with_token_ids(value: Any, tokenizer: Any) -> Any:
    """The same value with the numbers of tokens for their names: `id:<image>`."""
    if isinstance(value, str) and value.startswith("id:"):
        return tokenizer.convert_tokens_to_ids(value.removeprefix("id:"))
    if isinstance(value, list):
        return [_with_token_ids(each, tokenizer) for each in value]
    if isinstance(value, dict):
        return {name: _with_token_ids(each, tokenizer) for name, each in value.items()}
    return value


def _scaled(values: Mapping[str, Any], processor: Any) -> dict[str, Any]:
    scaled = dict(values)
    layers = max([LAYERS, *(len(set(values.get(name) or ())) for name in _LAYER_LISTS)])
    for name, value in values.items():
        if not isinstance(name, str):  # a table by numbers
            continue
        if name == "rope_parameters" and isinstance(value, dict):
            scaled[name] = _scaled_rope(value)
        elif name == "per_layer_config":
            del scaled[name]
        elif isinstance(value, dict):
            scaled[name] = _scaled(value, processor)
        elif name in _LAYER_LISTS and value:
            kinds = list(dict.fromkeys(value))
            scaled[name] = (
                (kinds * layers)[:layers]
                if name == "layer_types"
                else kinds + kinds[-1:] * (layers - len(kinds))
            )
        elif name == "vocab_size":
            scaled[name] = len(processor.tokenizer)
        elif re.search(r"_token_(id|index)$|^image_patch_id$", name):
            scaled[name] = _token_id(name, value, processor)
        elif isinstance(value, int | float | list | tuple) and not isinstance(value, bool):
            scaled[name] = _tiny_value(name, value)
    if scaled.get("sliding_window"):  # narrow only beside layers that see everything
        scaled["sliding_window"] = 24 if len(set(values.get("layer_types") or ())) > 1 else 512
    if "num_hidden_layers" in scaled and layers > LAYERS:
        scaled["num_hidden_layers"] = layers
    return scaled


def _tiny_value(name: str, value: Any) -> Any:
    for pattern, tiny in _TINY_FIELDS:
        if re.fullmatch(pattern, name):
            if isinstance(value, list | tuple) and not isinstance(tiny, list):
                return [tiny] * len(value)
            return tiny
    return value


def _scaled_rope(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of a rotary embedding in three axes add up to half a head."""
    scaled = {k: _scaled_rope(v) if isinstance(v, dict) else v for k, v in rope.items()}
    if "mrope_section" in scaled:
        pairs = int(HEAD_WIDTH // 2 * scaled.get("partial_rotary_factor", 1))
        scaled["mrope_section"] = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    return scaled


def _token_id(name: str, default: Any, processor: Any) -> Any:
    """The token that a field of a configuration names, as processor and tokenizer have it."""
    tokenizer = processor.tokenizer
    token = re.sub(r"_(id|index)$", "", name)  # image_token_id -> image_token
    for owner in (processor, tokenizer):
        if isinstance(found := getattr(owner, f"{token}_id", None), int):
            return found
        if isinstance(found := getattr(owner, token, None), str) and found in tokenizer.get_vocab():
            return tokenizer.convert_tokens_to_ids(found)
    named = re.sub(r"_token$", "", token)
    for text in (f"<{named}>", f"<|{named}|>", f"<|{named}_pad|>"):
        if text in tokenizer.get_vocab():
            return tokenizer.convert_tokens_to_ids(text)
    if isinstance(default, int) and 0 <= default < _BYTES:
        return default
    return None if default is None else tokenizer.unk_token_id


# ---------------------------------------------------------------------------------- processor


@cache
def _train_bpe(texts: tuple[str, ...]) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=_VOCAB_SIZE, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer.to_str()


def _sub_class(mapping: str, model_type: str) -> Any:
    """A class of a processor's part, by transformers' own table; Pillow's kind where there are two."""
    module, table = mapping.split(":")
    names = getattr(import_module(f"transformers.models.auto.{module}"), table).get(model_type)
    if isinstance(names, dict):
        names = names.get("pil") or names.get("torchvision")
    return getattr(hf, names) if names else None


def processor_class(model_type: str, facts: ClassFacts) -> Any:
    """The class's processor."""
    if facts.processor_class:
        return getattr(hf, facts.processor_class)
    return _sub_class("processing_auto:PROCESSOR_MAPPING_NAMES", model_type)


def special_tokens_of(processor: Any) -> tuple[list[str], dict[str, str]]:
    """Tokens a processor's source writes out, and those it takes from attributes of its tokenizer."""
    source = inspect.getsource(processor)
    literals = re.findall(r"""["'](<[^\s<>'"]+>|<\|[^'"]+\|>|\[[A-Z_]+\])["']""", source)
    attributes = set(re.findall(r"tokenizer(?:, [\"']|\.)(\w+_token)(?:_id)?\b", source))
    attributes -= {
        "add_bos_token",
        "add_eos_token",
        "bos_token",
        "eos_token",
        "pad_token",
        "unk_token",
        "sep_token",
        "cls_token",
        "mask_token",
    }
    return list(dict.fromkeys(literals)), {
        name: f"<{name.removesuffix('_token')}>" for name in sorted(attributes)
    }


def tiny_tokenizer(texts: tuple[str, ...], processor: Any, facts: ClassFacts) -> Any:
    """A byte-level BPE with the tokens of ChatML and those that the processor asks for."""
    literals, attributes = special_tokens_of(processor)
    attributes |= facts.named_tokens
    special = ["<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]
    special += [t for t in [*attributes.values(), *literals, *facts.tokens] if t not in special]
    tokenizer = Tokenizer.from_str(_train_bpe(texts))
    tokenizer.add_special_tokens(list(dict.fromkeys(special)))
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>", unk_token="<unk>",
        padding_side="left", extra_special_tokens=attributes,
    )  # fmt: skip


def _tiny_size(size: Any) -> Any:
    """Sides of an image in pixels, or numbers of its pixels."""
    if isinstance(size, int):
        return IMAGE_SIDE if size <= 4096 else IMAGE_SIDE**2
    tiny = {name: _tiny_size(value) for name, value in dict(size).items() if value is not None}
    if "longest_edge" in tiny and tiny["longest_edge"] == IMAGE_SIDE**2:
        tiny |= {"shortest_edge": IMAGE_SIDE**2, "longest_edge": 48**2}
    return tiny


def tiny_image_processor(kind: Any, given: Mapping[str, Any]) -> Any:
    """An image processor for tiny images."""
    default = kind()
    tiny = {}
    for name in ("size", "crop_size"):
        if getattr(default, name, None):
            tiny[name] = _tiny_size(getattr(default, name))
    for name, value in (("patch_size", PATCH_SIDE), ("image_grid_pinpoints", [[32, 32], [32, 64], [64, 32]]),
                        ("min_pixels", 32 * 32), ("max_pixels", 48 * 48)):  # fmt: skip
        if getattr(default, name, None) is not None:
            tiny[name] = (
                _tiny_size(value) if name == "patch_size" and isinstance(default.patch_size, dict) else value
            )
    if isinstance(getattr(default, "patch_size", None), int | list | tuple):
        tiny["patch_size"] = PATCH_SIDE
    elif getattr(default, "patch_size", None) is not None:
        tiny["patch_size"] = {"height": PATCH_SIDE, "width": PATCH_SIDE}
    return kind(**{**tiny, **given})


def tiny_processor(model_type: str, texts: tuple[str, ...], facts: ClassFacts) -> Any:
    """The class's processor with a tiny image processor, and a chat template where the class is made for chats."""
    kind = processor_class(model_type, facts)
    if kind is None:
        raise LookupError("transformers names no processor for it")
    tokenizer = tiny_tokenizer(texts, kind, facts)
    parameters = inspect.signature(kind.__init__).parameters
    parts: dict[str, Any] = {"tokenizer": tokenizer}
    image_class = getattr(hf, facts.image_class) if facts.image_class else _sub_class(
        "image_processing_auto:IMAGE_PROCESSOR_MAPPING_NAMES", model_type
    )  # fmt: skip
    if image_class is not None:
        parts["image_processor"] = tiny_image_processor(image_class, facts.image)
    video_class = getattr(hf, facts.video_class) if facts.video_class else _sub_class(
        "video_processing_auto:VIDEO_PROCESSOR_MAPPING_NAMES", model_type
    )  # fmt: skip
    if "video_processor" in parameters and video_class is not None:
        parts["video_processor"] = tiny_image_processor(video_class, facts.video)
    sound_class = _sub_class("feature_extraction_auto:FEATURE_EXTRACTOR_MAPPING_NAMES", model_type)
    if "feature_extractor" in parameters and sound_class is not None:
        parts["feature_extractor"] = sound_class()
    for name, part in facts.parts.items():
        parts[name] = tokenizer if part == "tokenizer" else getattr(hf, part)()
    processor = kind(**parts, **facts.processor)
    image_text = facts.image_text or getattr(processor, "image_token", None) or "<image>"
    if facts.template is not None:
        processor.chat_template = facts.template.replace("IMAGE", image_text) or None
    else:
        processor.chat_template = _chatml(image_text)
    return processor


def _chatml(image_text: str) -> str:
    return (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
        "{% if part.type == 'image' %}" + image_text + "{% else %}{{ part.text }}{% endif %}{% endfor %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


# ------------------------------------------------------------------------------------- folder


def write_tiny_model(model_type: str, folder: Path, texts: tuple[str, ...]) -> Any:
    """A model folder as the Hub has them; returns the network."""
    facts = CLASS_FACTS.get(model_type, ClassFacts())
    processor = tiny_processor(model_type, texts, facts)
    config = tiny_config(model_type, facts, processor)
    torch.manual_seed(0)
    net = hf.AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for name, parameter in net.named_parameters():  # widely spread, so that answers are decisive
            if parameter.ndim > 1 and parameter.is_floating_point():
                parameter.normal_(0, 0.15)
            elif re.search("gate|alpha", name) and not parameter.any():
                parameter.fill_(0.5)  # new layers that look at images begin shut
    tokenizer = processor.tokenizer
    net.generation_config = hf.GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    net.save_pretrained(folder)
    processor.save_pretrained(folder)
    return net
