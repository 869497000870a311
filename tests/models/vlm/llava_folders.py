"""Recorded folders of LLaVA's, converted, and changed ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from kovqa_core.models.vlm import base
from kovqa_core.models.vlm.config import ModelConfig
from kovqa_core.models.vlm.convert_llava import convert_llava_folder
from kovqa_core.models.vlm.hf_types import HfNetwork, HfProcessor
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests import parity
from tests.models.vlm.llava_reference import read_json

MERGED = parity.path("merged/llava-tiny-merged", "llava")  # v1: one layer, three tokens
NEWER = parity.path("llava15/llava-v1.5-tiny", "llava")  # 1.5: two layers, no token
TRAINED = parity.path("train_im_start_end/llava-tiny", "llava")  # projector and text table
PLAIN_TRAINED = parity.path("train_plain_image/llava-tiny", "llava")  # projector alone
VICUNA = parity.path("base/vicuna-tiny", "llava")
CLIP = parity.path("base/openai/clip-tiny-patch14", "llava")
RUNS = tuple(parity.json_of("conversations.json", "llava"))  # of recorded trainings, by their flags
LANGUAGE, VISION = read_json(VICUNA / "config.json"), read_json(CLIP / "config.json")["vision_config"]
BASE_ROWS = LANGUAGE["vocab_size"]  # of Vicuna's tables
NUM_PATCHES = (VISION["image_size"] // VISION["patch_size"]) ** 2
Weights = dict[str, Tensor]
TABLES = ("model.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class Converted:
    """A converted folder, opened."""

    folder: Path
    folder_type: str
    net: HfNetwork
    processor: HfProcessor


def converted(name: str, output: Path) -> Converted:
    """A recorded folder as a plain Hugging Face folder."""
    folder = output / "plain"
    folder_type = convert_llava_folder(
        parity.path(name, "llava"),
        folder,
        language=parity.path("base/vicuna-tiny", "llava"),
        vision=parity.path("base/openai/clip-tiny-patch14", "llava"),
    )
    config = ModelConfig(base=str(folder), dtype="fp32")
    return Converted(
        folder,
        folder_type,
        base.load_base_network(folder, config).eval(),
        base.load_hf_processor(folder, config),
    )


# ------------------------------------------------------------------------------ changed


def write_folder(
    folder: Path,
    source: Path,
    config: Mapping[str, Any],
    change: Callable[[Weights], None] = lambda weights: None,
) -> tuple[Weights, dict[str, Any]]:
    """A recorded folder of whole weights, changed; a value None takes a key of the configuration out."""
    shutil.copytree(source, folder)
    settings = {k: v for k, v in {**read_json(source / "config.json"), **config}.items() if v is not None}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    weights: Weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    change(weights)
    torch.save(weights, folder / "pytorch_model.bin")
    return weights, settings


def without(*names: str) -> Callable[[Weights], None]:
    return lambda weights: [weights.pop(name) for name in names] and None


def pad_tables(weights: Weights) -> None:
    for name in TABLES:
        weights[name] = torch.cat([weights[name], 9 * torch.randn(24, weights[name].shape[1])])


def vicuna(folder: Path, config: Mapping[str, Any], change: Callable[[Weights], None]) -> Path:
    """The recorded Vicuna, changed."""
    shutil.copytree(VICUNA, folder)
    (folder / "config.json").write_text(json.dumps({**read_json(VICUNA / "config.json"), **config}))
    weights = load_file(VICUNA / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def adapter(folder: Path, tensors: Mapping[str, Tensor], **settings: object) -> Path:
    """A LoRA folder beside the recorded projector."""
    folder.mkdir()
    shutil.copy(TRAINED / "config.json", folder)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, **settings}))
    save_file(dict(tensors), folder / "adapter_model.safetensors")
    trained = torch.load(TRAINED / "mm_projector.bin", weights_only=True)
    torch.save(
        {f"base_model.model.{name}": t for name, t in trained.items()}, folder / "non_lora_trainables.bin"
    )
    return folder


LAYER = "base_model.model.model.layers.1.self_attn.q_proj"
_WIDTH = LANGUAGE["hidden_size"]
PAIR = {f"{LAYER}.lora_A.weight": torch.ones(4, _WIDTH), f"{LAYER}.lora_B.weight": torch.ones(_WIDTH, 4)}
