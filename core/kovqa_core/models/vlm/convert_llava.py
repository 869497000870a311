"""LLaVA's own folders of 2023 -> plain Hugging Face folders, which need nothing of ours to be read.

The linear projector of LLaVA v1 becomes `linear_1`, followed by an identity. Source: docs/sources/llava.md, L17.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from kovqa_core.errors import ModelError
from kovqa_core.messages import message
from kovqa_core.models.checkpoint_info import CheckpointInfo, has_checkpoint_info, write_checkpoint_info
from kovqa_core.models.closed_folder import require_closed_folder
from kovqa_core.models.vlm.hf_libraries import save_hf_network, save_hf_processor, transformers
from kovqa_core.models.vlm.hf_types import HfNetwork, HfTokenizer, LlavaConfig
from kovqa_core.models.vlm.llava_folder import LlavaFolder, LlavaFolderType, detect_llava_folder
from kovqa_core.models.vlm.llava_processor import (
    choose_prompt_style,
    has_shared_tables,
    llava_config,
    llava_processor,
    load_llama_tokenizer,
)
from kovqa_core.models.vlm.llava_settings import require_honoured_settings, require_llama
from kovqa_core.models.vlm.llava_state_dict import LlavaDimensions, read_llava_state_dict
from kovqa_core.models.vlm.llava_weight_files import StateDict, missing_weights_error, unknown_weights_error
from kovqa_core.output_lock import output_lock
from kovqa_core.progress import OnProgress, ignore_progress
from kovqa_core.whole_folder import require_new_folder, write_new_folder


@dataclass(frozen=True)
class ConversionSettings:
    """What LLaVA's folder does not say.

    Attributes:
        prompt_style: a name in SYSTEM_PROMPTS: "v1" as trained, or "llava_v1", as the original's scripts answer;
            None: "v1", unless there are signs of another.
        seed: of a new projector and of the row of `<im_patch>`; for a plain language model.
        prompt_settings: kept in `kovqa.json`: values of `config.PROMPT_SETTINGS`.
    """

    prompt_style: str | None = None
    seed: int = 0
    prompt_settings: Mapping[str, object] | None = None


DEFAULT_CONVERSION = ConversionSettings()


def convert_llava_folder(
    path: Path,
    output: Path,
    language: Path | None = None,
    vision: Path | None = None,
    settings: ConversionSettings = DEFAULT_CONVERSION,
    on_progress: OnProgress = ignore_progress,
) -> LlavaFolderType:
    """Write a folder that transformers, peft and inference servers read as it is.

    Args:
        path: the folder, or a projector's file; see `detect_llava_folder`.
        output: the folder to be written, whole or not at all; see `write_new_folder`.
        language: folder of the language model it was trained on; for projector and lora.
        vision: folder of the CLIP model; for every type but hub.
        settings: see `ConversionSettings`.
        on_progress: called with notes.

    Raises:
        ModelError: it cannot be read whole, or a folder it needs is missing; a setting that would change its
            answers is not supported.
    """
    source = detect_llava_folder(path, has_base=language is not None)
    language, vision = _required_folders(source, language, vision)
    for folder in {source.path, language, vision}:
        require_closed_folder(folder)
    require_honoured_settings(source)
    require_llama(language)
    prompt_style = choose_prompt_style(source, language, settings.prompt_style)
    tokenizer = load_llama_tokenizer(language, source)
    config = llava_config(source, language, vision, tokenizer)
    dimensions = LlavaDimensions(
        config.vision_config.hidden_size,
        config.text_config.hidden_size,
        len(tokenizer),
        config.text_config.initializer_range,
        shared_tables=has_shared_tables(source, language),
    )
    state = read_llava_state_dict(source, language, vision, dimensions, settings.seed)
    net = _build_network(path, config, state, tokenizer)
    processor = llava_processor(source, vision, tokenizer, config, prompt_style)
    tower = source.config.get("mm_vision_tower") or vision.name
    info = CheckpointInfo(
        "vlm",
        "vqa",
        model=dict(settings.prompt_settings or {}),
        imported={"checkpoint": path.name, "kind": source.folder_type, "vision_tower": tower},
    )

    def fill(folder: Path) -> None:
        save_hf_network(net, folder)
        save_hf_processor(processor, folder)
        write_checkpoint_info(folder, info)

    with output_lock(output):
        require_new_folder(output, has_checkpoint_info)
        write_new_folder(output, fill, on_progress)
    return source.folder_type


def _build_network(path: Path, config: LlavaConfig, state: StateDict, tokenizer: HfTokenizer) -> HfNetwork:
    """A `LlavaForConditionalGeneration` that holds these weights, all of them.

    Raises:
        ModelError: one is missing, of another shape, or has no place; `path` is where they come from.
    """
    # On the meta device the network takes no memory; `assign` puts the tensors read in its parameters' place.
    with torch.device("meta"):
        net = transformers.LlavaForConditionalGeneration(config)
    _require_all_weights(path, {name: tensor.shape for name, tensor in net.state_dict().items()}, state)
    net.load_state_dict(state, assign=True)
    net.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return net


def _require_all_weights(path: Path, expected: Mapping[str, torch.Size], state: StateDict) -> None:
    """Refuse weights without a place, places without a weight, and other shapes.

    Raises:
        ModelError: one of these; it names the first.
    """
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if unknown:
        raise unknown_weights_error(
            path,
            unknown,
            message(
                "vlm.llava-weights-unknown.hint",
                "config.json, --base or --vision are of another model; or it is a later LLaVA: take the converted "
                "folder from the Hub (llava-hf)",
            ),
        )
    if missing:
        raise missing_weights_error(path, missing)
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise ModelError(
                message(
                    "vlm.llava-weight-shape",
                    "{folder}: {weight} has the shape {found}, but {expected} by the configuration",
                    folder=path,
                    weight=name,
                    found=list(state[name].shape),
                    expected=list(shape),
                ),
                message(
                    "vlm.llava-weight-shape.hint",
                    "give the language model (--base) and the image encoder (--vision) it was trained with",
                ),
            )


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
