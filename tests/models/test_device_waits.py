"""How often a step waits for the GPU, counted on a CPU (tests/device_waits.py). The loop's own waits are not in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.vlm.model import VlmModel
from kovqa_core.settings.resolve import resolve_settings

from tests.conftest import FUSION, VLM, Small
from tests.device_waits import ElsewhereTensor, WaitCounter, counted_waits, move_elsewhere

# Recipe, base, settings -> waits of a micro-batch's forward pass, of which transformers has no other way: it reads
# whether anything is masked where a decoder has masks of several kinds, and the numbers of an image's tiles.
CASES = {
    "nia": ("", (*FUSION, "model.loss=focal", "model.class_weights=effective"), 0),
    "nia-grid": ("", (*FUSION, "model.transformer_ffn=64"), 0),
    "llava": ("llava", VLM, 0),
    "qwen3_vl": ("qwen3_vl", VLM, 0),
    "qwen3_5": ("qwen3_5", VLM, 3),
    "llava_onevision": ("llava_onevision", VLM, 1),
}
# Of answers in 4 tokens: 2 a token, to see whether anything is masked and whether all have ended, and 16 at the start.
ANSWER_WAITS = {"nia": 2, "nia-grid": 2, "llava": 24, "qwen3_vl": 24}


@pytest.fixture(params=CASES)
def model_and_batches(
    request: pytest.FixtureRequest,
    small: Small,
    tiny_vlm: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, family.FamilyModel, list[family.ModelBatch]]:
    """A model, a batch to learn from and one to answer."""
    base, sets, _ = CASES[request.param]
    flags = {"data.index": str(small.index)}
    if base:
        flags["model.base"] = str(tiny_vlm(base))
        sets = (
            *sets,
            "model.dtype=fp32",
            "model.lora.dropout=0",
        )  # no autocast for tensors that are elsewhere
        monkeypatch.setattr(VlmModel, "_autocast", lambda self: contextlib.nullcontext())
    else:
        flags["model.tokenizer"] = str(small.tokenizer)
    recipe = resolve_settings("tiny-vlm" if base else request.param, "cpu", sets, flags).recipe
    index = open_index(small.index)
    model, processor, _ = family.create_model(recipe, index.answers())
    questions = sorted(index.split("train"), key=lambda example: len(example.question))
    examples, rng = [questions[0], questions[-1], questions[1]], np.random.default_rng(0)
    batches = [
        processor.collate([processor.encode(e, index.images, train=train, rng=rng) for e in examples])
        for train in (True, False)
    ]
    return request.param, model, batches


def moved(batch: family.ModelBatch) -> family.ModelBatch:
    there = {n: ElsewhereTensor(t) if isinstance(t, torch.Tensor) else t for n, t in batch.tensors.items()}
    return replace(batch, tensors=there, on_host=batch.tensors)


def test_waits_of_a_forward_pass(
    model_and_batches: tuple[str, family.FamilyModel, list[family.ModelBatch]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, model, (learn, ask) = model_and_batches
    model.eval()  # dropout would draw other masks elsewhere
    with torch.no_grad():
        expected, answers = model(learn, 0)["loss"], model.answer(ask)
    move_elsewhere(model)
    with counted_waits(monkeypatch) as counter:
        loss = model(moved(learn), 0)["loss"]
        model.loss_weight(moved(learn), 0)
    torch.testing.assert_close(loss.value, expected)
    assert sum(counter.waits.values()) == CASES[name][2], counter.waits
    if name in ANSWER_WAITS:
        counter = WaitCounter()
        with counted_waits(monkeypatch) as counter:
            there = model.answer(moved(ask))
        assert [answer.text for answer in there] == [answer.text for answer in answers]
        assert sum(counter.waits.values()) <= ANSWER_WAITS[name], counter.waits
