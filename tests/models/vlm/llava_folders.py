"""Recorded folders of LLaVA's, converted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kovqa_core.models.vlm import base
from kovqa_core.models.vlm.config import ModelConfig
from kovqa_core.models.vlm.convert_llava import convert_llava_folder
from kovqa_core.models.vlm.hf_types import HfNetwork, HfProcessor

from tests import parity


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
