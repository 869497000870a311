"""Compiled layers of fusion and vision language models: few graphs, the same numbers, answers as they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.data.example import Example
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.fusion.network import pad_to_multiple
from kovqa_core.models.vlm.model import VlmModel
from kovqa_core.settings.resolve import resolve_settings
from torch._dynamo.utils import counters

from tests.conftest import FUSION, VLM, Small
from tests.models.vlm.test_vlm import tiny_vlm_recipe

PLAIN = "model.picture_dropout=0", "model.head_dropout=0", "model.transformer_dropout=0"
QUESTION = (
    "model.question_config={hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64, "
    "hidden_dropout_prob: 0, attention_probs_dropout_prob: 0}"
)


def test_text_is_padded_to_few_lengths() -> None:
    tokens, padding = pad_to_multiple(torch.full((2, 9), 5), None, 1)
    assert tokens.shape == padding.shape == (2, 16)
    assert tokens[:, 9:].eq(1).all() and padding[:, 9:].all() and not padding[:, :9].any()
    again, same = pad_to_multiple(tokens, padding, 1)
    assert torch.equal(again, tokens) and torch.equal(same, padding)


@pytest.mark.parametrize("base", ["llava", "qwen3_vl"])
def test_rows_need_no_mask_where_padding_is_on_their_right(
    small: Small, tiny_vlm: Callable[[str], Path], base: str
) -> None:
    """On a GPU, and compiled: attention's fastest kernels take none, and a mask and none are two graphs."""
    recipe = tiny_vlm_recipe(small, tiny_vlm(base), "model.dtype=fp32", "model.lora.dropout=0")
    model, processor, _ = family.create_model(recipe, [])
    assert isinstance(model, VlmModel)
    index = open_index(small.index)
    examples = sorted(index.split("train"), key=lambda example: len(example.question))
    batch = learn(processor, [examples[0], examples[-1]], index.images)
    assert not batch.tensors["attention_mask"].all()
    model.train()
    gradients = []
    for masks in (True, False):
        model.host_values.masks_padding = masks
        assert ("attention_mask" in model.host_values.training_inputs(batch.tensors, batch.tensors)) == masks
        model.zero_grad()
        model(batch, 0)["loss"].backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def learn(processor: family.ExampleProcessor, examples: Sequence[Example], images: Path) -> family.ModelBatch:
    rng = np.random.default_rng(1)
    return processor.collate([processor.encode(e, images, train=True, rng=rng) for e in examples])


@pytest.mark.soak
@pytest.mark.parametrize(("name", "graphs"), [("nia", 2), ("nia-grid", 2), ("llava", 2), ("qwen3_vl", 2)])
def test_graphs_are_few_whatever_comes(
    small: Small, tiny_vlm: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, graphs: int
) -> None:
    """Traced, and run without a compiler: lengths, numbers of rows, padding or none."""
    index = open_index(small.index)
    if name.startswith("nia"):
        flags = {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}
        sets = (*FUSION, *PLAIN, QUESTION, "model.transformer_ffn=64")
        recipe = resolve_settings(name, "cpu", sets, flags).recipe
    else:
        sets = (*VLM, "model.dtype=fp32", "model.lora.dropout=0")
        recipe = tiny_vlm_recipe(small, tiny_vlm(name), *sets)
    plain, processor, _ = family.create_model(recipe, index.answers())
    model, _, _ = family.create_model(recipe, index.answers())
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain.train()
    model.train().prepare(activation_checkpointing=False, compile=True)
    examples = sorted(index.split("train"), key=lambda example: len(example.question))
    for numbers in ([0, 1, 2], [0, 0, 0], [-1, 0, 5], [-1, -1], [7, 3]):
        batch = learn(processor, [examples[number] for number in numbers], index.images)
        losses = [each(batch, 0)["loss"] for each in (model, plain)]
        losses[0].backward()
        torch.testing.assert_close(losses[0], losses[1])
    rng = np.random.default_rng(1)
    ask = processor.collate([processor.encode(e, index.images, train=False, rng=rng) for e in examples[:3]])
    with torch.inference_mode():
        assert [a.text for a in model.eval().answer(ask)] == [a.text for a in plain.eval().answer(ask)]
    assert counters["stats"]["unique_graphs"] <= graphs
    torch._dynamo.reset()
