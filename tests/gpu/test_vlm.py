"""Checks 16 and 19: a vision language model on a GPU: its words, draws, lists and letters; four-bit weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from kovqa_core.data.example import Answer
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.vlm import choice_scores, generation
from kovqa_core.models.vlm.model import VlmModel

from tests.conftest import Small
from tests.gpu.devices import CPU, GPU_MARKS, Built, TinyVlm, build, case_settings, on_devices

LIST = ["빨간색", "빨간 원", "파란색", "두 개", "세 개", "빨간"]
LETTERS = [["가", "나", "다", "라"], ["빨강", "파랑"], ["하나", "둘", "셋"], ["예", "아니요"]]


def answered(built: Built, way: str, ids: Sequence[str]) -> list[Answer]:
    """Answers in fp32, one way."""
    model = built.model.eval()
    assert isinstance(model, VlmModel)
    batch: ModelBatch = replace(built.ask, ids=list(ids))
    generator, prompts = model.generator, model.prompts(batch)
    with torch.inference_mode():
        if way == "greedy":
            return generation.answer_greedily(generator, prompts)
        if way == "draws":
            return generation.answer_by_sampling(generator, prompts, batch.ids, 1, temperature=2.0)
        if way == "list":
            trie = generation.build_answer_trie(generator, LIST)
            return generation.choose_from_trie(generator, prompts, trie)
        return choice_scores.choose_by_letter(generator, prompts, LETTERS[: len(ids)])


@pytest.mark.parametrize(
    ("device", "way"),
    on_devices(("greedy", "draws", "list", "letters"), ("greedy", "draws", "list", "letters")),
)
def test_every_way_to_answer(small: Small, tiny_vlm: TinyVlm, device: torch.device, way: str) -> None:
    """As on the CPU; draws are a function of seed and id, and may be others on another device."""
    built = build("vlm:lora", small, tiny_vlm, device, "model.dtype=fp32")
    ids = built.ask.ids
    here = answered(built, way, ids)
    if way == "draws":
        assert answered(built, way, ids) == here
        assert answered(built, way, ["다른", *ids[1:]])[1:] == here[1:]
        return
    expected = answered(built.on(CPU), way, ids)
    assert [answer.text for answer in here] == [answer.text for answer in expected]
    for one, other in zip(here, expected, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("device", [pytest.param(torch.device("cuda"), marks=GPU_MARKS)])
@pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: no four-bit weights"
)
def test_four_bit_weights_learn(small: Small, tiny_vlm: TinyVlm, device: torch.device) -> None:
    """Where the library is missing, that is refused by name: tests/models/vlm/test_vlm.py."""
    assert case_settings("vlm:lora", small, tiny_vlm, "model.train=qlora").recipe.family == "vlm"
    built = build("vlm:lora", small, tiny_vlm, device, "model.train=qlora")
    with torch.autocast("cuda", torch.bfloat16):
        loss = built.model.train()(built.learn, 0)["loss"]
    loss.backward()
    learned = [p for p in built.model.parameters() if p.requires_grad]
    assert torch.isfinite(loss)
    assert learned
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in learned)
