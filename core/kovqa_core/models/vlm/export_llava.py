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
from kovqa_core.models.vlm.convert_llava import IMAGE_END_TOKEN, IMAGE_START_TOKEN, PATCH_TOKEN

_PROJECTOR_LOADING_CODE = """\
# LLaVA's own scripts read this folder, its base beside it, if its name contains "llava":
#   python -m llava.eval.model_vqa --model-path FOLDER --model-base BASE …
# Its projector, and its text table where tokens were added:
import torch

weights = torch.load("mm_projector.bin", weights_only=True)
"""
# What the configuration of a Llama of 2023 says.
_LLAMA_SETTINGS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
    "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings",
)  # fmt: skip


def write_llava_projector(net: Any, processor: Any, tower: str | None, folder: Path) -> str:
    """Write both files; Python that reads the weights.

    Args:
        net: the network, low-rank updates and rows merged.
        processor: its Hugging Face processor.
        tower: the name of its picture encoder; None: OpenAI's of its size.
        folder: where to write; must be there.

    Raises:
        ModelError: it has not LLaVA's shape.
    """
    about = net.config
    parts = [about.model_type, about.get_text_config().model_type]
    if parts != ["llava", "llama"] or about.vision_config.model_type != "clip_vision_model":
        raise ModelError(
            f"only a LLaVA of CLIP and Llama has the form of the original, this is {' with '.join(parts)}",
            "leave --as-upstream away",
        )
    known = processor.tokenizer.get_vocab()
    settings = {
        **{name: getattr(about.text_config, name) for name in _LLAMA_SETTINGS},
        "model_type": "llava",
        "architectures": ["LlavaLlamaForCausalLM"],
        "mm_vision_tower": tower or _clip_hub_name(about.vision_config),
        "mm_hidden_size": about.vision_config.hidden_size,
        "mm_projector_type": "linear" if _is_single_layer(net) else "mlp2x_gelu",
        "mm_vision_select_layer": about.vision_feature_layer,
        "mm_vision_select_feature": "patch"
        if about.vision_feature_select_strategy == "default"
        else "cls_patch",
        "mm_use_im_patch_token": PATCH_TOKEN in known,
        "mm_use_im_start_end": IMAGE_START_TOKEN in known and IMAGE_END_TOKEN in known,
        "image_aspect_ratio": "pad" if getattr(processor.image_processor, "do_pad", False) else "square",
        "image_grid_pinpoints": None,
        "tune_mm_mlp_adapter": True,
        "use_mm_proj": True,
    }
    write_json(folder / "config.json", settings)
    tensors = {
        name: t.detach().float().cpu().clone()
        for name, t in projector_tensors(net, IMAGE_START_TOKEN in known).items()
    }
    with atomic_file(folder / "mm_projector.bin") as stream:
        torch.save(tensors, stream)
    return _PROJECTOR_LOADING_CODE


def projector_tensors(net: Any, framed: bool) -> dict[str, Tensor]:
    """What the original saves: the projector, and the text table if tokens were added to it.

    Args:
        net: the network.
        framed: are there tokens before and after a picture?
    """
    projector = net.model.multi_modal_projector
    layers = (
        {"": projector.linear_1}
        if _is_single_layer(net)
        else {".0": projector.linear_1, ".2": projector.linear_2}
    )
    found = {
        f"model.mm_projector{place}.{name}": getattr(layer, name)
        for place, layer in layers.items()
        for name in ("weight", "bias")
    }
    return {**found, "model.embed_tokens.weight": net.get_input_embeddings().weight} if framed else found


def _is_single_layer(net: Any) -> bool:
    """Is the projector the one layer of v1, with an identity after it?"""
    second = net.model.multi_modal_projector.linear_2
    if net.config.projector_hidden_act != "linear":
        return False
    if not torch.equal(second.weight.float().cpu(), torch.eye(len(second.weight))) or second.bias.any():
        raise ModelError(
            "the second layer of the projector was trained, which LLaVA v1 does not have",
            "train with model.frozen=[linear_2], as recipe llava-v1 does",
        )
    return True


def _clip_hub_name(vision: Any) -> str:
    """The name of OpenAI's large CLIP of this size."""
    larger = "" if vision.image_size == 224 else f"-{vision.image_size}"
    return f"openai/clip-vit-large-patch{vision.patch_size}{larger}"
