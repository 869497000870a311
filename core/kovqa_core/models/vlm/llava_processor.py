"""Tokenizer, image processor, chat template and configuration of a converted LLaVA.

Source: docs/sources/llava.md, L7 to L11, L14 to L17.
"""

from __future__ import annotations

from pathlib import Path

from kovqa_core.errors import ModelError
from kovqa_core.files import read_json
from kovqa_core.messages import message
from kovqa_core.models.vlm.hf_libraries import transformers
from kovqa_core.models.vlm.hf_types import HfProcessor, HfTokenizer, LlavaConfig
from kovqa_core.models.vlm.llava_folder import (
    IMAGE_END_TOKEN,
    IMAGE_START_TOKEN,
    IMAGE_TOKEN,
    LlavaFolder,
)

SYSTEM_TEMPLATE = (
    "A chat between a curious {who} and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the {who}'s questions."
)
SYSTEM_PROMPTS = {"v1": SYSTEM_TEMPLATE.format(who="user"), "llava_v1": SYSTEM_TEMPLATE.format(who="human")}
_MIN_VOCAB_SIZE = 1000  # no language model's tokenizer is smaller


def load_llama_tokenizer(folder: Path, added_tokens: list[str]) -> HfTokenizer:
    """The slow tokenizer of 2023 with its treatment of blanks, and the added tokens.

    It put a blank before every run of text (`legacy`), and removed the blanks on both sides of an added
    token. The saved tokenizer file says both, so that whoever loads it need not know.

    Raises:
        ModelError: the folder has no tokenizer that transformers can read.
    """
    tokenizer = transformers.LlamaTokenizer.from_pretrained(folder, legacy=True, local_files_only=True)
    if tokenizer.vocab_size < _MIN_VOCAB_SIZE:  # transformers reads an unknown file as a vocabulary of five
        raise ModelError(
            message("vlm.tokenizer-unreadable", "the tokenizer in {folder} cannot be read", folder=folder),
            message("vlm.tokenizer-unreadable.hint", "it needs tokenizer.model: fetch it again"),
        )
    tokens = [
        transformers.AddedToken(token, lstrip=True, rstrip=True, special=True, normalized=False)
        for token in added_tokens
    ] or [transformers.AddedToken(IMAGE_TOKEN, special=True, normalized=False)]
    tokenizer.add_tokens(tokens, special_tokens=True)
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = 2048
    return tokenizer


def llava_config(source: LlavaFolder, language: Path, vision: Path, tokenizer: HfTokenizer) -> LlavaConfig:
    """The `LlavaConfig` of the converted network.

    Args:
        source: LLaVA's folder.
        language: folder of the language model.
        vision: folder of the CLIP model.
        tokenizer: with the added tokens.
    """
    clip = read_json(vision / "config.json")
    text = {**read_json(language / "config.json"), "model_type": "llama", "vocab_size": len(tokenizer)}
    patches_only = source.config.get("mm_vision_select_feature", "patch") == "patch"
    vision_config = transformers.CLIPVisionConfig(**clip.get("vision_config", clip))
    num_patches = (vision_config.image_size // vision_config.patch_size) ** 2
    return transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**{k: v for k, v in text.items() if not k.startswith("mm_")}),
        vision_config=vision_config,
        image_token_index=tokenizer.convert_tokens_to_ids(source.image_token),
        image_seq_length=num_patches + (0 if patches_only else 1),  # 1: the class token
        projector_hidden_act="gelu" if source.has_mlp_projector else "linear",
        vision_feature_layer=source.config.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="default" if patches_only else "full",
        tie_word_embeddings=False,
    )


def llava_processor(
    source: LlavaFolder, vision: Path, tokenizer: HfTokenizer, config: LlavaConfig, system_prompt: str
) -> HfProcessor:
    """The `LlavaProcessor` of the converted network.

    Args:
        source: LLaVA's folder.
        vision: folder of the CLIP model.
        tokenizer: with the added tokens.
        config: see `llava_config`.
        system_prompt: text before a chat.
    """
    settings = {
        name: value
        for name, value in read_json(vision / "preprocessor_config.json").items()
        if name not in ("feature_extractor_type", "image_processor_type")  # classes of transformers 4
    }
    settings["do_pad"] = source.config.get("image_aspect_ratio") == "pad"
    return transformers.LlavaProcessor(
        transformers.LlavaImageProcessorPil(**settings),
        tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        image_token=source.image_token,
        chat_template=llava_chat_template(
            system_prompt, source.image_token, with_frame=IMAGE_START_TOKEN in source.added_tokens
        ),
    )


def llava_chat_template(system_prompt: str, image_token: str, *, with_frame: bool) -> str:
    """Vicuna's chat as LLaVA renders it: the image first, on a line of its own.

    Args:
        system_prompt: text before the chat.
        image_token: stands for an image.
        with_frame: put it between `<im_start>` and `<im_end>`.
    """
    image = f"{IMAGE_START_TOKEN}{image_token}{IMAGE_END_TOKEN}" if with_frame else image_token
    content = (
        "{% set text = message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('') %}"
        "{% set pictured = message.content | selectattr('type', 'equalto', 'image') | list %}"
    )
    return (
        "{{ bos_token }}" + system_prompt + " {% for message in messages %}" + content +
        "{% if message.role == 'user' %}USER: {% if pictured %}" + image + "{{ '\\n' }}{{ text | trim }}"
        "{% else %}{{ text }}{% endif %} "
        "{% else %}ASSISTANT: {{ text }}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )  # fmt: skip
