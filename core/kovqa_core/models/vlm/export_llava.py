"""A network of LLaVA's shape -> `mm_projector.bin` and `config.json` as LLaVA's own training writes them.

Source: docs/sources/llava.md, L17 and L22.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kovqa_core.errors import ModelError
from kovqa_core.files import atomic_file, write_json
from kovqa_core.messages import message
from kovqa_core.models.vlm.hf_types import HfNetwork, HfProcessor, VisionConfig
from kovqa_core.models.vlm.llava_folder import IMAGE_END_TOKEN, IMAGE_START_TOKEN, PATCH_TOKEN

_PROJECTOR_LOADING_CODE = """\
# LLaVA's own scripts read this folder, its base beside it, if its name contains "llava":
#   python -m llava.eval.model_vqa --model-path FOLDER --model-base BASE …
# Its projector, and its text table where tokens were added:
import torch

weights = torch.load("mm_projector.bin", weights_only=True)
"""
_TABLE_NAME = "model.embed_tokens.weight"
# What the configuration of a Llama of 2023 says.
_LLAMA_SETTINGS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
    "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "attention_bias", "mlp_bias",
)  # fmt: skip


def write_llava_projector(
    net: HfNetwork, processor: HfProcessor, vision_tower: str | None, folder: Path
) -> str:
    """Write both files; returns Python that reads the weights.

    Args:
        net: the network, low-rank updates and token rows merged.
        processor: its Hugging Face processor.
        vision_tower: the name of its vision encoder; None: OpenAI's of its size.
        folder: where to write; must exist.

    Raises:
        ModelError: it does not have LLaVA's shape.
    """
    _require_llava_shape(net.config)
    write_json(folder / "config.json", _original_settings(net, processor, vision_tower))
    tensors = {
        name: tensor.detach().float().cpu().clone()
        for name, tensor in projector_tensors(net, with_embeddings=_has_image_frame(processor)).items()
    }
    if _TABLE_NAME in tensors:
        tensors[_TABLE_NAME] = tensors[_TABLE_NAME][: _vocab_size(net, processor)].clone()
    with atomic_file(folder / "mm_projector.bin") as stream:
        torch.save(tensors, stream)
    return _PROJECTOR_LOADING_CODE


def _require_llava_shape(config: Any) -> None:
    """Refuse what the original's classes cannot hold.

    Raises:
        ModelError: other language model, image encoder or projector.
    """
    architectures = [config.model_type, config.get_text_config().model_type]
    if architectures != ["llava", "llama"] or config.vision_config.model_type != "clip_vision_model":
        found: str = message(
            "vlm.model-with-language-model", "{model} with {language}",
            model=architectures[0], language=architectures[1],
        )  # fmt: skip
    elif config.projector_hidden_act not in ("linear", "gelu"):
        found = f"projector_hidden_act={config.projector_hidden_act}"
    elif not isinstance(config.vision_feature_layer, int):
        found = f"vision_feature_layer={config.vision_feature_layer}"
    else:
        return
    raise ModelError(
        message(
            "vlm.not-llava-shaped",
            "only a LLaVA of CLIP and Llama has the form of the original, this is {architectures}",
            architectures=found,
        ),
        message("vlm.not-llava-shaped.hint", "leave out --as-upstream"),
    )


def _has_image_frame(processor: HfProcessor) -> bool:
    vocab = processor.tokenizer.get_vocab()
    return IMAGE_START_TOKEN in vocab and IMAGE_END_TOKEN in vocab


def _vocab_size(net: HfNetwork, processor: HfProcessor) -> int:
    """Rows of the original's tables: without `<image>`, which it does not have, and what stands behind it."""
    is_patch = PATCH_TOKEN in processor.tokenizer.get_vocab()
    return int(net.config.text_config.vocab_size if is_patch else net.config.image_token_id)


def _rope_settings(text_config: Any) -> dict[str, object]:
    """`rope_theta` and `rope_scaling`, the latter as 4.31 writes it: {type, factor}."""
    rope = dict(text_config.rope_parameters)
    theta, rope_type = rope.pop("rope_theta"), rope.pop("rope_type")
    return {
        "rope_theta": theta,
        "rope_scaling": None if rope_type == "default" else {"type": rope_type, **rope},
    }


def _original_settings(net: HfNetwork, processor: HfProcessor, vision_tower: str | None) -> dict[str, object]:
    """The `config.json` of the original."""
    config, vocab = net.config, processor.tokenizer.get_vocab()
    head: Any = net.get_submodule("lm_head")
    return {
        "vocab_size": _vocab_size(net, processor),
        **{name: getattr(config.text_config, name) for name in _LLAMA_SETTINGS},
        **_rope_settings(config.text_config),
        # An import has two tables of a base that shares one; the original reads that base as this says.
        "tie_word_embeddings": torch.equal(net.get_input_embeddings().weight, head.weight),
        "model_type": "llava",
        "architectures": ["LlavaLlamaForCausalLM"],
        "mm_vision_tower": vision_tower or _clip_hub_name(config.vision_config),
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_projector_type": "linear" if _is_single_layer(net) else "mlp2x_gelu",
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_vision_select_feature": "patch"
        if config.vision_feature_select_strategy == "default"
        else "cls_patch",
        "mm_use_im_patch_token": PATCH_TOKEN in vocab,
        "mm_use_im_start_end": _has_image_frame(processor),
        "image_aspect_ratio": "pad" if getattr(processor.image_processor, "do_pad", False) else "square",
        "image_grid_pinpoints": None,
        "tune_mm_mlp_adapter": True,
        "use_mm_proj": True,
    }


def projector_tensors(net: HfNetwork, *, with_embeddings: bool) -> dict[str, Tensor]:
    """What the original saves, under its names.

    Args:
        net: the network.
        with_embeddings: the text table [V, D], too; the original saves it where `<im_start>` was added.
    """
    projector: Any = net.get_submodule("model.multi_modal_projector")
    layers = (
        {"": projector.linear_1}
        if _is_single_layer(net)
        else {".0": projector.linear_1, ".2": projector.linear_2}
    )
    tensors = {
        f"model.mm_projector{index}.{name}": getattr(layer, name)
        for index, layer in layers.items()
        for name in ("weight", "bias")
    }
    if with_embeddings:
        tensors[_TABLE_NAME] = net.get_input_embeddings().weight
    return tensors


def _is_single_layer(net: HfNetwork) -> bool:
    """Is the projector the one layer of v1, with an identity after it?

    Raises:
        ModelError: it was, until its second layer was trained.
    """
    if net.config.projector_hidden_act != "linear":
        return False
    second: Any = net.get_submodule("model.multi_modal_projector.linear_2")
    if not torch.equal(second.weight.float().cpu(), torch.eye(len(second.weight))) or second.bias.any():
        raise ModelError(
            message(
                "vlm.second-projector-layer-trained",
                "the second layer of the projector was trained, which LLaVA v1 does not have",
            ),
            message(
                "vlm.second-projector-layer-trained.hint",
                "train with model.frozen=[linear_2], as recipe llava-v1 does",
            ),
        )
    return True


def _clip_hub_name(vision_config: VisionConfig) -> str:
    """The name of OpenAI's large CLIP of this size."""
    suffix = "" if vision_config.image_size == 224 else f"-{vision_config.image_size}"
    return f"openai/clip-vit-large-patch{vision_config.patch_size}{suffix}"
