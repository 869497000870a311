"""Recorded results of the original code, and our model with the recorded weights.

The recordings lie in `tests/fixtures/parity`; `KOVQA_PARITY_DIR` names another folder of the same
layout. All sizes, names and numbers come from the recording itself.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.beit3.config import ModelConfig, ModelDimensions
from kovqa_core.models.beit3.family import Beit3Model
from kovqa_core.models.beit3.network import Beit3VqaNet, MultiwayEncoder
from kovqa_core.models.beit3.pretrained_weights import (
    load_pretrained_weights,
    original_names,
    read_pretrained_weights,
)
from kovqa_core.models.beit3.vqa import VqaTask
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

_SHIPPED = Path(__file__).parent / "fixtures" / "parity"
torch.set_num_threads(1)  # as recorded; networks this small only wait for a second thread
HEADS = ("pooler", "head")  # what a pretrained file lacks


def path(name: str, of: str = "beit3") -> Path:
    """A file of the recording of BEiT-3 (or `of` another); the test fails when it is not there."""
    folder = Path(os.environ.get("KOVQA_PARITY_DIR") or _SHIPPED) / of
    if not folder.is_dir():
        pytest.fail(f"no recorded results in {folder}: check KOVQA_PARITY_DIR", pytrace=False)
    if not (folder / name).exists():
        pytest.fail(f"the recorded results in {folder} lack {name}", pytrace=False)
    return folder / name


def json_of(name: str, of: str = "beit3") -> Any:
    """A recorded JSON document."""
    return json.loads(path(name, of).read_text(encoding="utf-8"))


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Tensors of a file; images, which are stored in fp16, in fp32."""
    return {k: t.float() if t.is_floating_point() else t for k, t in load_file(file).items()}


def tensors_of(name: str) -> dict[str, Tensor]:
    """Recorded tensors, in fp32."""
    return load_tensors(path(name))


@functools.cache
def _weights(file: Path) -> dict[str, Tensor]:
    return read_pretrained_weights(file).tensors


def weights(name: str) -> dict[str, Tensor]:
    """A recorded state dict, under the original's names, in fp32. Not to be changed."""
    return _weights(path(name))


def config(**changes: Any) -> ModelConfig:
    """Our configuration of the recorded model."""
    about = json_of("config.json")
    size = ModelDimensions(about["embed_dim"], about["num_heads"], about["num_layers"], about["ffn_dim"])
    known = {
        "size": "custom",
        "custom": size,
        "image_size": about["image_size"],
        "patch_size": about["patch_size"],
        "vocab_size": about["vocab_size"],
        "num_classes": about["num_classes"],
    }
    return ModelConfig(**{**known, **changes})


def vqa_model(answers: list[str] | None = None) -> Beit3Model:
    """Our VQA model with the weights of `vqa.pth`."""
    chosen = config()
    assert chosen.num_classes is not None
    model = Beit3Model(
        Beit3VqaNet(chosen), VqaTask(answers or [f"class {i}" for i in range(chosen.num_classes)])
    )
    report = load_pretrained_weights(model.net, weights("vqa.pth"), (), "vqa.pth")
    assert not report.newly_initialised
    assert not report.unused
    return model


def caption_net() -> CaptionNet:
    """Our captioner with the weights of `captioning.pth`."""
    net = CaptionNet(config(num_classes=None))
    report = load_pretrained_weights(net, weights("captioning.pth"), (), "captioning.pth")
    assert not report.newly_initialised
    assert not report.unused
    return net


def caption_encoder() -> MultiwayEncoder:
    """Our encoder, final norm included, with the weights of `captioning.pth`."""
    return caption_net().encoder


def vqa_batch(
    image: Tensor, tokens: Tensor, padding: Tensor | None, labels: Tensor | None = None, name: str = "row"
) -> ModelBatch:
    """A batch as our processor would make it; `padding` is 1 where there is no token."""
    labels = torch.zeros(len(image), 0) if labels is None else labels
    positions = labels.nonzero()
    return ModelBatch(
        {
            "image": image,
            "tokens": tokens,
            "padding": None if padding is None else padding.bool(),
            "noise": torch.zeros(len(image), 0, 2),
            "label_positions": positions,
            "label_scores": labels[positions[:, 0], positions[:, 1]],
        },
        [f"{name} {i}" for i in range(len(image))],
    )


def inputs_batch(labels: Tensor | None = None) -> ModelBatch:
    """The recorded inputs as a batch."""
    inputs = tensors_of("inputs.safetensors")
    return vqa_batch(inputs["image"], inputs["language_tokens"], inputs["padding_mask"], labels)


def split(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One of our parameters (or its gradient) as the original's: q, k and v apart."""
    names = original_names(name)
    return dict(zip(names, tensor.chunk(len(names)), strict=True))


def originals(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Our named tensors under the original's names."""
    return {original: part for name, tensor in named for original, part in split(name, tensor).items()}


def close(actual: Tensor, expected: Tensor, atol: float, what: str) -> None:
    """Fail, naming what differs and by how much, unless |actual - expected| <= atol everywhere."""
    assert actual.numel() == expected.numel(), f"{what}: {list(actual.shape)}, not {list(expected.shape)}"
    worst = (actual.detach().reshape(expected.shape) - expected).abs().max().item()
    assert worst <= atol, f"{what}: differs by {worst:.2e}, allowed are {atol:.0e}"


def resized_by_pillow(image: Image.Image, side: int, resample: Image.Resampling) -> list[Image.Image]:
    """A square image by the pass order of each release of Pillow that there is.

    Pillow 13.0 (its pull request 9549) resizes vertically first where the height shrinks much more than the width; up
    to 12.3 the horizontal pass is always the first. Between the passes pixels are rounded to 8 bits, so that a few of
    them differ, by up to 10 of 255 in the recorded images. What was recorded must be one of the two, exactly.
    """
    between = (side, image.height), (image.width, side)
    return [image.resize(size, resample).resize((side, side), resample) for size in between]


def close_norms(actual: Mapping[str, float], expected: Mapping[str, float], rel: float) -> None:
    """Fail, naming the worst, unless every number agrees relatively."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value, rel=rel), name
