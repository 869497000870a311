"""What a step of LoRA does with weights that do not learn, and with those that a loss does not reach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.vlm.model import VlmModel
from torch import nn

from tests.conftest import Small
from tests.cuda_autocast import cuda_autocast
from tests.models.vlm.test_vlm import tiny_vlm_recipe


def model_and_batch(small: Small, base: Path, *sets: str) -> tuple[VlmModel, ModelBatch]:
    model, processor, _ = family.create_model(tiny_vlm_recipe(small, base, "model.lora.dropout=0", *sets), [])
    index, rng = open_index(small.index), np.random.default_rng(0)
    items = [processor.encode(e, index.images, train=True, rng=rng) for e in list(index.split("train"))[:2]]
    assert isinstance(model, VlmModel)
    return model.train(), processor.collate(items)


def test_frozen_products_are_held_in_the_precision_of_training(
    small: Small, tiny_vlm: Callable[[str], Path]
) -> None:
    """fp16 of a GPU without bf16. Pixels come in the dtype of the first weight: fp16 rounds them less than bf16."""
    model, batch = model_and_batch(small, tiny_vlm("qwen3_vl"), "model.dtype=bf16")
    with cuda_autocast(torch.float16):
        expected = model(batch, 0)["loss"]
    model.suit_device(torch.device("cpu"), "fp16")
    with cuda_autocast(torch.float16):
        torch.testing.assert_close(model(batch, 0)["loss"], expected, rtol=1e-3, atol=0)
    linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    assert {weight.dtype for weight in linear if not weight.requires_grad} == {torch.float16}
    assert {weight.dtype for weight in linear if weight.requires_grad} == {torch.float32}
    stream = [m for m in model.modules() if isinstance(m, nn.Embedding) or type(m).__name__.endswith("Norm")]
    assert {parameter.dtype for module in stream for parameter in module.parameters()} == {torch.bfloat16}
    model.suit_device(torch.device("cpu"), "bf16")
    assert {weight.dtype for weight in linear if not weight.requires_grad} == {torch.float16}, (
        "once is enough"
    )


@pytest.mark.parametrize("train", ["lora", "{projector: full, vision: lora}"])
def test_every_parameter_gets_a_gradient_and_few_are_touched_for_it(
    small: Small, tiny_vlm: Callable[[str], Path], train: str
) -> None:
    """CLIP's last layer is not read (docs/sources/llava.md): only it needs a gradient of its own."""
    model, batch = model_and_batch(small, tiny_vlm("llava"), f"model.train={train}", "model.dtype=fp32")
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for _ in range(2):  # what is found at the first loss holds for the next
        model.zero_grad()
        model(batch, 0)["loss"].backward()
        assert [name for name, p in learning if p.grad is None] == []
    assert model._untouched is not None
    touched = {id(parameter) for parameter in model._untouched}
    names = [name for name, p in learning if id(p) in touched]
    assert bool(names) == (train != "lora")
    assert all(".layers.1." in name or "post_layernorm" in name for name in names), names
