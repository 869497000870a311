"""LLaVA's own folders of 2023 -> plain Hugging Face folders, which need nothing of ours to be read.

The linear projector of LLaVA v1 becomes `linear_1`, followed by an identity. Source: docs/sources/llava.md, L17.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from kovqa_core.errors import ModelError
from kovqa_core.files import write_folder
from kovqa_core.messages import message
from kovqa_core.models.checkpoint_info import CheckpointInfo, write_checkpoint_info
from kovqa_core.models.vlm.hf_libraries import save_hf_network, transformers
from kovqa_core.models.vlm.hf_types import HfNetwork, LlavaConfig
from kovqa_core.models.vlm.llava_folder import LlavaFolder, LlavaFolderType, detect_llava_folder
from kovqa_core.models.vlm.llava_processor import (
    SYSTEM_PROMPTS,
    llava_config,
    llava_processor,
    load_llama_tokenizer,
)
from kovqa_core.models.vlm.llava_state_dict import LlavaDimensions, StateDict, read_llava_state_dict


@dataclass(frozen=True)
class ConversionSettings:
    """What LLaVA's folder does not say.

    Attributes:
        system_prompt: a name in SYSTEM_PROMPTS: "v1" as trained, or "llava_v1", as the original's scripts answer.
        seed: of a new projector and of the row of `<im_patch>`; for a plain language model.
        prompt_settings: kept in `kovqa.json`: values of `config.PROMPT_SETTINGS`.
    """

    system_prompt: str = "v1"
    seed: int = 0
    prompt_settings: Mapping[str, object] | None = None


DEFAULT_CONVERSION = ConversionSettings()


def convert_llava_folder(
    path: Path,
    output: Path,
    language: Path | None = None,
    vision: Path | None = None,
    settings: ConversionSettings = DEFAULT_CONVERSION,
) -> LlavaFolderType:
    """Write a folder that transformers, peft and inference servers read as it is.

    Args:
        path: the folder; see `detect_llava_folder`.
        output: the folder to be written, whole or not at all.
        language: folder of the language model it was trained on; for projector and lora.
        vision: folder of the CLIP model; for every type but hub.
        settings: see `ConversionSettings`.

    Raises:
        ModelError: it cannot be read, or a folder it needs is missing.
    """
    source = detect_llava_folder(path)
    language, vision = _required_folders(source, language, vision)
    tokenizer = load_llama_tokenizer(language, source.added_tokens)
    config = llava_config(source, language, vision, tokenizer)
    dimensions = LlavaDimensions(
        config.vision_config.hidden_size,
        config.text_config.hidden_size,
        len(tokenizer),
        config.text_config.initializer_range,
    )
    state = read_llava_state_dict(source, language, vision, dimensions, settings.seed)
    net = _build_network(path, config, state)
    processor = llava_processor(source, vision, tokenizer, config, SYSTEM_PROMPTS[settings.system_prompt])
    tower = source.config.get("mm_vision_tower") or vision.name
    info = CheckpointInfo(
        "vlm",
        "vqa",
        model=dict(settings.prompt_settings or {}),
        imported={"checkpoint": path.name, "kind": source.folder_type, "vision_tower": tower},
    )

    def fill(folder: Path) -> None:
        save_hf_network(net, folder)
        processor.save_pretrained(folder)
        write_checkpoint_info(folder, info)

    write_folder(output, fill)
    return source.folder_type


def _build_network(path: Path, config: LlavaConfig, state: StateDict) -> HfNetwork:
    """A `LlavaForConditionalGeneration` that holds these weights.

    Raises:
        ModelError: some are missing; `path` is where they should have been.
    """
    # On the meta device the network takes no memory; `assign` puts the tensors read in its parameters' place.
    with torch.device("meta"):
        net = transformers.LlavaForConditionalGeneration(config)
    # Not strict: an error of torch would list every missing weight, and this one says where they belong.
    report = net.load_state_dict(state, strict=False, assign=True)
    if report.missing_keys:
        raise ModelError(
            message(
                "vlm.llava-weights-missing",
                "{folder} lacks {count} weights, {first} …",
                folder=path,
                count=len(report.missing_keys),
                first=report.missing_keys[0],
            ),
            message("vlm.llava-weights-missing.hint", "fetch it again"),
        )
    net.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return net


def _required_folders(source: LlavaFolder, language: Path | None, vision: Path | None) -> tuple[Path, Path]:
    """The folders of the language model and of the vision tower.

    Raises:
        ModelError: one is missing; nothing needs to be converted.
    """
    if source.folder_type == "hub":
        raise ModelError(
            message(
                "vlm.llava-already-plain", "{folder} is in Hugging Face's layout already", folder=source.path
            ),
            message("vlm.llava-already-plain.hint", "use it as it is: --model, or --set model.base="),
        )
    if source.folder_type in ("merged", "language"):
        language = source.path
    if language is None or not (language / "config.json").is_file():
        raise ModelError(
            message("vlm.no-language-model", "{folder} does not hold its language model", folder=source.path),
            message("vlm.no-language-model.hint", "give the folder of one with --base"),
        )
    if vision is None or not (vision / "config.json").is_file():
        raise ModelError(
            message("vlm.no-vision-tower", "{folder} does not hold its vision tower", folder=source.path),
            message("vlm.no-vision-tower.hint", "give the folder of a CLIP with --vision"),
        )
    return language, vision
