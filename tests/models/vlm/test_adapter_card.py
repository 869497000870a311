"""An adapter that plain peft opens without the other trained weights says so in its own folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.models.vlm.hf_libraries import peft, transformers
from safetensors.torch import load_file

from tests.conftest import Small
from tests.models.vlm.test_vlm import tiny_vlm_recipe


def write_checkpoint(small: Small, base: Path, step: Path, *sets: str) -> family.FamilyModel:
    """A checkpoint whose trained weights are not the base's."""
    model, processor, _ = family.create_model(tiny_vlm_recipe(small, base, *sets), [])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    step.mkdir()
    family.write_model_folder(model, processor, step, CheckpointInfo("vlm", "vqa"))
    return model


@pytest.mark.parametrize(
    ("train", "components"),
    [
        ("{projector: full, language: lora}", "(projector)"),
        ("{vision: full, projector: lora}", "(vision)"),
        ("{vision: full, projector: full, language: lora}", "(projector, vision)"),
    ],
)
def test_an_adapter_beside_other_trained_weights_names_them(
    train: str, components: str, small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    base, step = tiny_vlm("qwen3_vl"), tmp_path / "step"
    trained = write_checkpoint(small, base, step, f"model.train={train}").eval()
    card = (step / "adapter" / "README.md").read_text(encoding="utf-8")
    for text in (
        components,
        "trained.safetensors",
        "kovqa export RUN",
        "어댑터만으로는 모델이 되지 않습니다",
    ):
        assert text in card
    ours, _ = family.read_model_folder(step, "vqa")
    plain = peft.PeftModel.from_pretrained(
        transformers.AutoModelForImageTextToText.from_pretrained(base), step / "adapter"
    )
    weights = {
        name.removeprefix("base_model.model."): value
        for name, value in trained.net.state_dict().items()  # type: ignore[operator, union-attr]
    }
    read = ours.net.state_dict()  # type: ignore[operator, union-attr]
    assert all(torch.equal(read[f"base_model.model.{name}"], value) for name, value in weights.items())
    opened = plain.state_dict()
    beside = load_file(step / "trained.safetensors")
    lost = [n for n, value in beside.items() if (opened[f"base_model.model.{n}"] - value).abs().max() > 0.04]
    assert lost == list(beside), "peft now reads everything: the card says what is no longer true"


@pytest.mark.parametrize("train", ["lora", "{vision: lora, projector: lora, language: lora}"])
def test_an_adapter_that_holds_everything_has_no_card(
    train: str, small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    write_checkpoint(small, tiny_vlm("qwen3_vl"), tmp_path / "step", f"model.train={train}")
    assert sorted(path.name for path in (tmp_path / "step" / "adapter").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
