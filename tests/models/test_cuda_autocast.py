"""Every family learns and answers under CUDA's autocast, whose dtypes a CPU's does not have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.models import family
from kovqa_core.models.precision import prepare_answering
from kovqa_core.models.xlmr_tokenizer import BOS_ID
from kovqa_core.settings.recipe import Recipe
from torch._subclasses.fake_tensor import FakeTensorMode

from tests import parity
from tests.cuda_autocast import RAISED, Waits, cuda_autocast
from tests.models.test_contract import opened, recipe

__all__ = ["recipe"]  # the fixture: every family with every task

HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("name", sorted(RAISED))
def test_the_rules_are_those_of_torch(name: str) -> None:
    """Held against torch's own CUDA autocast, on tensors without memory."""
    needs_dimension = ("logsumexp", "softmax", "log_softmax", "cumprod", "cumsum", "prod", "sum")
    more = (2,) if name == "pow" else (-1,) if name in needs_dimension else ()
    operation = getattr(torch.nn.functional if name == "softplus" else torch, name)
    with cuda_autocast(torch.bfloat16):
        emulated = operation(torch.full((2, 3), 0.5, dtype=torch.bfloat16), *more).dtype
    was = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    with FakeTensorMode():
        tensor = torch.empty(2, 3, dtype=torch.bfloat16, device="cuda")
        try:
            torch.set_autocast_enabled("cuda", True)
            torch.set_autocast_dtype("cuda", torch.bfloat16)
            real = operation(tensor, *more).dtype
        finally:
            torch.set_autocast_enabled("cuda", was[0])
            torch.set_autocast_dtype("cuda", was[1])
    assert emulated == real == torch.float32


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_every_family_learns_and_answers(recipe: Recipe, dtype: torch.dtype) -> None:
    index, answers = opened(recipe)
    model, processor, _ = family.create_model(recipe, answers)
    examples = list(index.split("train"))[:3]
    rng = np.random.default_rng(1)
    learn = processor.collate(
        [processor.encode(e, Path(index.images), train=True, rng=rng) for e in examples]
    )
    ask = processor.collate([processor.encode(e, Path(index.images), train=False, rng=rng) for e in examples])
    with cuda_autocast(dtype):
        loss = model.train()(learn, 0)["loss"]
    assert torch.isfinite(loss)
    loss.backward()
    model.eval()
    with torch.inference_mode(), cuda_autocast(dtype):
        answers = model.answer(ask)
    assert len(answers) == 3
    assert all(0 <= answer.score <= 1 for answer in answers)
    prepare_answering(model, {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype], torch.device("cpu"))
    assert any(parameter.dtype == dtype for parameter in model.parameters())
    with torch.inference_mode(), cuda_autocast(dtype), Waits() as waits:
        read = model.begin_answers(ask)
        before_reading = list(waits.calls)
        assert read() == answers, "weights that are rounded once give what weights give that autocast rounds"
    if recipe.task == "vqa" and recipe.family != "vlm":  # transformers' `generate` waits at every token
        assert "tolist" not in before_reading, "read once, and not before the next batch is begun"
        if recipe.family == "beit3":
            assert before_reading == []


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1.5e-2), (torch.float16, 2e-3)], ids=str)
@torch.no_grad()
def test_a_captions_words_in_16_bits_are_nearly_those_in_32(dtype: torch.dtype, tolerance: float) -> None:
    """Token by token, with a cache of those before; the tolerance is of the largest logit."""
    net = parity.caption_net().eval()
    image = parity.tensors_of("caption_inputs.safetensors")["image"]
    token_ids = parity.tensors_of("incremental_tokens.safetensors")["tokens"]
    previous_ids = torch.cat([torch.full_like(token_ids[:, :1], BOS_ID), token_ids], 1)
    expected = parity.tensors_of("expected_caption.safetensors")["incremental.logits"]
    mask = parity.json_of("config.json")["mask_id"]
    with cuda_autocast(dtype):
        image_cache = net.encode_image(image)
        text_cache = net.empty_kv_cache(len(token_ids), token_ids.shape[1] + 2, image_cache[0][0])
        logits = [
            net.next_token_logits(previous_ids[:, step], mask, image_cache, text_cache)
            for step in range(expected.shape[1])
        ]
    difference = (torch.stack(logits, 1).float() - expected).abs().max()
    assert difference <= tolerance * expected.abs().max()
