"""Small models as they are made, in step folders: what is exported in tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.settings.resolve import resolve_settings

from tests.conftest import FUSION, SMALL, VLM, Small

_GRID = ("model.fusion=grid", "model.transformer=1", "model.transformer_heads=2", "model.transformer_ffn=64")
_AFTER_PRODUCT = ("model.transformer=2", "model.transformer_heads=4", "model.transformer_ffn=64")
CASES = {
    "beit3:vqa": ("tiny", SMALL),
    "beit3:caption": ("tiny-caption", SMALL),
    "fusion": ("nia", FUSION),
    "fusion:transformer": ("nia", (*FUSION, *_AFTER_PRODUCT)),
    "fusion:grid": ("nia", (*FUSION, *_GRID)),
    "vlm:qwen3_vl": ("tiny-vlm", VLM),
    "vlm:llava": ("tiny-vlm", VLM),
}
ANSWERS = ["예", "아니요", "두\n줄"]


def write_untrained(name: str, small: Small, tiny_vlm: Callable[[str], Path], step: Path) -> Path:
    """The step folder of a model of a case, whose low-rank updates and statistics are not the initial ones."""
    recipe_name, settings = CASES[name]
    kind = name.partition(":")
    flags = {"data.index": str(small.captions if "caption" in name else small.index)}
    if kind[0] == "vlm":
        flags["model.base"] = str(tiny_vlm(kind[2]))
    else:
        flags["model.tokenizer"] = str(small.tokenizer)
    recipe = resolve_settings(recipe_name, "cpu", settings, flags).recipe
    model, processor, _ = family.create_model(recipe, ANSWERS)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.05, generator=draws)
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("running_mean"):
                buffer.normal_(generator=draws)
    step.mkdir(parents=True)
    info = CheckpointInfo(recipe.family, recipe.task, recipe.name, step=7, score=0.5)
    family.write_model_folder(model, processor, step, info)
    return step
