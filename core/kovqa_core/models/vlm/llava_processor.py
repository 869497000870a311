"""Tokenizer, image processor, chat template and configuration of a converted LLaVA.

Source: docs/sources/llava.md, L7 to L11, L14 to L17, L39 and L41.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from kovqa_core.errors import ModelError
from kovqa_core.files import read_text
from kovqa_core.messages import message
from kovqa_core.models.closed_folder import read_model_json
from kovqa_core.models.tokenizer_json import require_readable_tokenizer
from kovqa_core.models.vlm.hf_libraries import transformers
from kovqa_core.models.vlm.hf_types import HfProcessor, HfTokenizer, LlavaConfig, TextConfig
from kovqa_core.models.vlm.llava_folder import (
    IMAGE_END_TOKEN,
    IMAGE_START_TOKEN,
    LlavaFolder,
)
from kovqa_core.models.vlm.llava_settings import (
    read_vision_config,
    require_matching_encoder,
    select_layer,
)

# Names of the original's conversations (`--version`, `--conv-mode`) -> the text before a chat.
PromptStyle = Literal["v1", "llava_v1", "llava_llama_2"]
_VICUNA_SYSTEM = (
    "A chat between a curious {who} and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the {who}'s questions."
)
SYSTEM_PROMPTS: Mapping[str, str] = {
    "v1": _VICUNA_SYSTEM.format(who="user"),
    "llava_v1": _VICUNA_SYSTEM.format(who="human"),
    "llava_llama_2": "You are a helpful language and vision assistant. You are able to understand the visual content "
    "that the user provides, and assist the user with a variety of tasks using natural language.",
}
_ROPE_KEYS = {"rope_theta", "rope_scaling", "rope_parameters"}  # names of 4.31 and of transformers 5
_FILE_KEYS = {
    "architectures",
    "_name_or_path",
    "dtype",
    "transformers_version",
}  # of how the file was written


# ------------------------------------------------------------------------------ tokenizer


def load_llama_tokenizer(folder: Path, source: LlavaFolder) -> HfTokenizer:
    """The slow tokenizer of 2023 with its treatment of blanks, and the added tokens.

    It put a blank before every run of text (`legacy`), and removed the blanks on both sides of an added
    token. The saved tokenizer file says both, so that whoever loads it need not know.

    Args:
        folder: of the language model.
        source: LLaVA's folder, which says which tokens are added.

    Raises:
        ModelError: the folder has no tokenizer of a Llama that transformers can read.
    """
    tokenizer = _read_llama_tokenizer(folder)
    # Without a frame nothing of the original's text stands beside the image: the blanks around it stay.
    stripping = set(source.added_tokens) if source.has_image_frame else set()
    tokens = [
        transformers.AddedToken(
            token, lstrip=token in stripping, rstrip=token in stripping, special=True, normalized=False
        )
        for token in source.new_tokens
    ]
    tokenizer.add_tokens(tokens, special_tokens=True)
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = 2048
    return tokenizer


def _read_llama_tokenizer(folder: Path) -> Any:
    file = folder / "tokenizer.json"
    model = read_model_json(file).get("model") if file.is_file() else None
    if isinstance(model, dict) and not model.get("byte_fallback"):
        # Of Llama 3, for one: read as a Llama's of 2023 it would write other tokens, without a word.
        raise _tokenizer_error(
            folder, message("vlm.not-sentencepiece", "it is not a SentencePiece of a Llama's")
        )
    require_readable_tokenizer(file)
    try:
        tokenizer = transformers.LlamaTokenizer.from_pretrained(folder, legacy=True, local_files_only=True)
    except Exception as error:  # another one for each kind of broken file
        raise _tokenizer_error(folder, " ".join(str(error).split())) from None
    if not tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens):
        # Without a file, transformers makes a vocabulary of the special tokens alone.
        raise _tokenizer_error(folder, message("vlm.tokenizer-file-missing", "no tokenizer.model"))
    if not tokenizer.unk_token:  # transformers looks for the id of "" without end
        raise _tokenizer_error(folder, message("vlm.no-unknown-token", "unk_token is empty"))
    return tokenizer


def _tokenizer_error(folder: Path, reason: str) -> ModelError:
    return ModelError(
        message(
            "vlm.tokenizer-unreadable",
            "the tokenizer in {folder} cannot be read ({reason})",
            folder=folder,
            reason=reason,
        ),
        message("vlm.tokenizer-unreadable.hint", "it needs tokenizer.model: fetch it again"),
    )


# ------------------------------------------------------------------------------ configuration


def llava_config(source: LlavaFolder, language: Path, vision: Path, tokenizer: HfTokenizer) -> LlavaConfig:
    """The `LlavaConfig` of the converted network.

    Args:
        source: LLaVA's folder.
        language: folder of the language model.
        vision: folder of the CLIP model.
        tokenizer: with the added tokens.

    Raises:
        ModelError: language model or image encoder are of another kind or size.
    """
    vision_config = _build_config(transformers.CLIPVisionConfig, vision, read_vision_config(vision))
    require_matching_encoder(source, vision, vision_config)
    patches_only = source.config.get("mm_vision_select_feature", "patch") == "patch"
    num_patches = (vision_config.image_size // vision_config.patch_size) ** 2
    return transformers.LlavaConfig(
        text_config=_text_config(source, language, len(tokenizer)),
        vision_config=vision_config,
        image_token_index=tokenizer.convert_tokens_to_ids(source.image_token),
        image_seq_length=num_patches + (0 if patches_only else 1),  # 1: the class token
        projector_hidden_act="gelu" if source.projector_layers == 2 else "linear",
        vision_feature_layer=select_layer(source, vision_config.num_hidden_layers),
        vision_feature_select_strategy="default" if patches_only else "full",
        tie_word_embeddings=False,
    )


def has_shared_tables(source: LlavaFolder, language: Path) -> bool:
    """Is the language model's head its text table (`tie_word_embeddings`)? Its own configuration may say so alone."""
    base = read_model_json(language / "config.json")
    return bool(source.config.get("tie_word_embeddings") or base.get("tie_word_embeddings"))


def _text_config(source: LlavaFolder, language: Path, vocab_size: int) -> TextConfig:
    # LLaVA's own configuration comes first: the original builds the base with it. Two tables, even where it has
    # one for both: rows of tokens that learn are of the text table alone.
    known = (transformers.LlamaConfig().to_dict().keys() | _ROPE_KEYS) - _FILE_KEYS
    stored = {**read_model_json(language / "config.json"), **source.config}
    settings = {name: value for name, value in stored.items() if name in known}
    settings |= {"model_type": "llama", "vocab_size": vocab_size, "tie_word_embeddings": False}
    config: TextConfig = _build_config(transformers.LlamaConfig, language, settings)
    return config


def _build_config(config_class: Any, folder: Path, settings: Mapping[str, object]) -> Any:
    """A configuration of transformers, which checks some of its values."""
    try:
        return config_class(**settings)
    except Exception as error:  # of a class of its own for each check
        raise ModelError(
            message(
                "vlm.config-unusable",
                "{file} cannot be used ({reason})",
                file=folder / "config.json",
                reason=" ".join(str(error).split()),
            ),
            message("vlm.config-unusable.hint", "fetch it again"),
        ) from None


def llava_processor(
    source: LlavaFolder, vision: Path, tokenizer: HfTokenizer, config: LlavaConfig, prompt_style: str
) -> HfProcessor:
    """The `LlavaProcessor` of the converted network.

    Args:
        source: LLaVA's folder.
        vision: folder of the CLIP model.
        tokenizer: with the added tokens.
        config: see `llava_config`.
        prompt_style: a name in SYSTEM_PROMPTS.

    Raises:
        DataError: the image encoder's folder has no `preprocessor_config.json`.
    """
    settings = {
        name: value
        for name, value in read_model_json(vision / "preprocessor_config.json").items()
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
            prompt_style, source.image_token, with_frame=source.has_image_frame
        ),
    )


def llava_chat_template(prompt_style: str, image_token: str, *, with_frame: bool) -> str:
    """A chat as LLaVA renders it: the image first, on a line of its own.

    Args:
        prompt_style: a name in SYSTEM_PROMPTS.
        image_token: stands for an image.
        with_frame: put it between `<im_start>` and `<im_end>`.
    """
    image = f"{IMAGE_START_TOKEN}{image_token}{IMAGE_END_TOKEN}" if with_frame else image_token
    content = (
        "{% set text = message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('') %}"
        "{% set pictured = message.content | selectattr('type', 'equalto', 'image') | list %}"
    )
    question = "{% if pictured %}" + image + "{{ '\\n' }}{{ text | trim }}{% else %}{{ text }}{% endif %}"
    system = SYSTEM_PROMPTS[prompt_style]
    if prompt_style == "llava_llama_2":
        return (
            "{{ bos_token }}{% for message in messages %}" + content +
            "{% if message.role == 'user' %}{% if not loop.first %}{{ bos_token }}{% endif %}[INST] "
            "{% if loop.first %}{{ '<<SYS>>\\n" + system + "\\n<</SYS>>\\n\\n' }}{% endif %}" + question + " [/INST]"
            "{% else %} {{ text }} </s>{% endif %}{% endfor %}"
        )  # fmt: skip
    return (
        "{{ bos_token }}" + system + " {% for message in messages %}" + content +
        "{% if message.role == 'user' %}USER: " + question + " "
        "{% else %}ASSISTANT: {{ text }}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )  # fmt: skip


# ------------------------------------------------------------------------------ prompt


def choose_prompt_style(source: LlavaFolder, language: Path, requested: str | None) -> str:
    """The prompt it was trained with; no file of LLaVA's says so.

    Raises:
        ModelError: none is requested, and there are signs of another one than Vicuna's.
    """
    if requested is not None:
        return requested
    for folder in (source.path, language):
        if sign := _sign_of_another_prompt(folder):
            raise ModelError(
                message(
                    "vlm.prompt-style-unknown",
                    "{sign} is of a model with another prompt than Vicuna's; which one it was trained with as a LLaVA, "
                    "no file says",
                    sign=sign,
                ),
                message(
                    "vlm.prompt-style-unknown.hint",
                    "say which: --set model.system=NAME, with NAME one of {names} (--version in its training)",
                    names=", ".join(SYSTEM_PROMPTS),
                ),
            )
    return "v1"


def _sign_of_another_prompt(folder: Path) -> str:
    """A file whose template writes other turns than USER and ASSISTANT, or the name of a Llama 2 Chat; else empty."""
    config = folder / "config.json"
    names = (folder.resolve().name, str(read_model_json(config).get("_name_or_path", "")))
    for name in names:  # the original chooses the prompt by the folder's name (docs/sources/llava.md, L41)
        plain = name.lower().replace("_", "-")
        if ("llama-2" in plain or "llama2" in plain) and "chat" in plain:
            return name
    for file in (
        folder / "chat_template.jinja",
        folder / "chat_template.json",
        folder / "tokenizer_config.json",
    ):
        if file.is_file():
            template = (
                read_text(file)
                if file.suffix == ".jinja"
                else str(read_model_json(file).get("chat_template") or "")
            )
            if template and not ("USER" in template and "ASSISTANT" in template):
                return str(file)
    return ""
