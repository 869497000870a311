"""Captions: what is learned, and the captions that are found, are the original's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.beit3.beam_search import BeamSearchSettings, run_beam_search
from kovqa_core.models.beit3.caption import (
    CaptionTask,
    count_masked_tokens,
    masked_token_logits,
    masked_token_losses,
)
from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.beit3.config import CaptionSettings
from kovqa_core.models.beit3.family import Beit3Model
from kovqa_core.models.xlmr_tokenizer import BOS_ID, EOS_ID, PAD_ID, XlmrTokenizer
from kovqa_core.settings.recipe import OptimSettings
from kovqa_core.train.optim import clip_grad_norm, make_optimizer, set_learning_rate
from torch import Tensor

from tests import parity

TOLERANCE = 2e-4


def inputs() -> dict[str, Tensor]:
    recorded = parity.tensors_of("caption_inputs.safetensors")
    return {**recorded, "padding_mask": recorded["padding_mask"].bool()}


def batch() -> ModelBatch:
    """The recorded inputs as our processor would give them."""
    recorded = inputs()
    positions = recorded["language_masked_pos"].nonzero()
    targets = recorded["language_tokens"][recorded["language_masked_pos"].bool()]
    tensors = {
        "image": recorded["image"], "tokens": recorded["masked_tokens"], "padding": recorded["padding_mask"],
        "noise": torch.zeros(len(targets), 0, 2), "positions": positions, "targets": targets,
    }  # fmt: skip
    return ModelBatch(tensors, [str(number) for number in range(len(recorded["image"]))])


def task(**changes: Any) -> CaptionTask:
    return CaptionTask(
        CaptionSettings(**changes), 32, XlmrTokenizer(parity.path("tokenizer.model").read_bytes())
    )


@pytest.fixture(scope="module")
def net() -> CaptionNet:
    return parity.caption_net().eval()


def test_parity_beit3_caption_logits_of_masked_tokens(net: CaptionNet) -> None:
    expected = parity.tensors_of("expected_caption.safetensors")
    with torch.no_grad():
        parity.close(
            masked_token_logits(net, batch()), expected["logits_at_masked"], TOLERANCE, "masked tokens"
        )


@pytest.mark.parametrize(
    ("tokens", "name"),
    [("masked_tokens", "logits_all_positions"), ("language_tokens", "logits_unmasked_all_positions")],
)
def test_parity_beit3_caption_logits_everywhere(net: CaptionNet, tokens: str, name: str) -> None:
    recorded = inputs()
    with torch.no_grad():
        logits = net.mlm_head(
            net.hidden_states(recorded["image"], recorded[tokens], recorded["padding_mask"])
        )
    real = ~recorded["padding_mask"]
    parity.close(logits[real], parity.tensors_of("expected_caption.safetensors")[name][real], TOLERANCE, name)


@pytest.mark.parametrize(("dropping", "after"), [("keep_all", 12000), ("drop_worst", 0)])
def test_parity_beit3_caption_loss(dropping: str, after: int) -> None:
    expected = parity.tensors_of("expected_caption.safetensors")
    net = parity.caption_net().train()
    loss = task(drop_worst_after=after).loss(net, batch(), 1)
    loss.backward()
    parity.close(loss, expected[f"loss.{dropping}"], 1e-4, dropping)
    norm = clip_grad_norm([p for p in net.parameters() if p.grad is not None], None)
    assert norm.item() == pytest.approx(expected[f"grad_norm.{dropping}"].item(), rel=1e-4)
    if dropping == "keep_all":
        return
    gradients = parity.originals((n, p.grad) for n, p in net.named_parameters() if p.grad is not None)
    for name in (name for name in expected if name.startswith("grad.")):
        parity.close(gradients[name.removeprefix("grad.")], expected[name], 1e-4, name)
    table = expected["embed_positions_B_grad_rows0_40"]
    parity.close(gradients["beit3.encoder.embed_positions.B.weight"][: len(table)], table, 1e-4, "positions")


def test_parity_beit3_caption_accuracy(net: CaptionNet) -> None:
    with torch.no_grad():
        hits = masked_token_logits(net, batch()).argmax(-1) == batch().tensors["targets"]
    expected = parity.tensors_of("expected_caption.safetensors")["acc.keep_all"]
    parity.close(hits.float().mean(), expected, 1e-6, "accuracy")


def test_parity_beit3_caption_mask_counts() -> None:
    cases = parity.json_of("expected_caption_mask_counts.json")
    assert cases
    for case in cases:
        for length, count in case["num_tokens_and_masked"]:
            assert count_masked_tokens(length, case["mask_prob"]) == count, (length, case["mask_prob"])


def test_parity_beit3_caption_training() -> None:
    """Weights that no token depends on stay in ours; the original's shrink, which no loss can see."""
    case = parity.json_of("expected_train_caption.json")
    net = parity.caption_net().train()
    learner = task(
        smoothing=case["label_smoothing"], drop_worst=case["drop_worst_ratio"],
        drop_worst_after=case["drop_worst_after"],
    )  # fmt: skip
    model = Beit3Model(net, learner)
    optim = OptimSettings(
        steps=len(case["losses"]), global_batch=1, lr=max(case["lr_per_update"]),
        weight_decay=case["weight_decay"], betas=case["betas"], eps=case["eps"],
    )  # fmt: skip
    optimizer = make_optimizer(model, model, optim)
    for step, rate in zip(case["global_steps"], case["lr_per_update"], strict=True):
        set_learning_rate(optimizer, rate)
        loss = model(batch(), step)["loss"]
        assert loss.item() == pytest.approx(case["losses"][step], rel=TOLERANCE)
        loss.backward()
        norm = clip_grad_norm([p for p in net.parameters() if p.grad is not None], None)
        assert norm.item() == pytest.approx(case["grad_norms"][step], rel=TOLERANCE)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def test_parity_beit3_caption_token_by_token(net: CaptionNet) -> None:
    """With a cache of the tokens before, a token's logits are those of the whole caption at once."""
    expected = parity.tensors_of("expected_caption.safetensors")
    recorded, token_ids = inputs(), parity.tensors_of("incremental_tokens.safetensors")["tokens"]
    mask = parity.json_of("config.json")["mask_id"]
    image_cache = net.encode_image(recorded["image"])
    text_cache = net.empty_kv_cache(len(token_ids), token_ids.shape[1] + 2, image_cache[0][0])
    steps = expected["incremental.logits"].shape[1]
    previous_ids = torch.cat([torch.full_like(token_ids[:, :1], BOS_ID), token_ids], 1)
    for step in range(steps):
        logits = net.next_token_logits(previous_ids[:, step], mask, image_cache, text_cache)
        parity.close(logits, expected["incremental.logits"][:, step], TOLERANCE, f"token {step}")
    parity.close(logits, expected["incremental.full_last"], TOLERANCE, "the last token, without a cache")
    whole = torch.cat([previous_ids[:, :steps], torch.full_like(previous_ids[:, :1], mask)], 1)
    again = net.mlm_head(net.hidden_states(recorded["image"], whole, None)[:, -1])
    parity.close(logits, again, TOLERANCE, "the last token, all at once")


@pytest.mark.parametrize("number", range(len(parity.json_of("expected_beam_search.json"))))
@torch.no_grad()
def test_parity_beit3_beam_search(net: CaptionNet, number: int) -> None:
    case, mask = parity.json_of("expected_beam_search.json")[number], parity.json_of("config.json")["mask_id"]
    images = parity.tensors_of("beam_images.safetensors")["image"]
    search = BeamSearchSettings(case["num_beams"], case["max_len"], case["length_penalty"])
    hypotheses = run_beam_search(net, images, search, mask)
    for hypothesis, ids, score, caption in zip(
        hypotheses, case["decoded_ids"], case["scores"], case["captions"], strict=True
    ):
        # The original leaves the mask in the place of the token that would come next.
        tokens = [BOS_ID, *hypothesis.token_ids, mask, EOS_ID]
        assert tokens + [PAD_ID] * (search.max_length - len(tokens)) == ids
        assert hypothesis.score == pytest.approx(score, abs=1e-4)
        assert task().tokenizer.decode(hypothesis.token_ids) == caption


@torch.no_grad()
def test_an_image_alone_and_in_a_batch_get_one_caption(net: CaptionNet) -> None:
    images = parity.tensors_of("beam_images.safetensors")["image"]
    mask = parity.json_of("config.json")["mask_id"]
    together = run_beam_search(net, images, BeamSearchSettings(), mask)
    alone = [run_beam_search(net, image[None], BeamSearchSettings(), mask)[0] for image in images]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]


def test_without_smoothing_the_loss_is_cross_entropy() -> None:
    logits, token_ids = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)), torch.arange(5)
    expected = torch.nn.functional.cross_entropy(logits, token_ids, reduction="none")
    parity.close(masked_token_losses(logits, token_ids, 0.0), expected, 1e-6, "cross-entropy")


@pytest.mark.parametrize(
    ("number", "dropped", "kept"),
    [(1, 0.2, 1), (1, 0.99, 1), (3, 0.9, 1), (5, 0.2, 4), (10, 0.2, 8), (4, 0.3, 2)],
)
def test_at_least_one_token_counts(number: int, dropped: float, kept: int) -> None:
    """A batch with one masked token keeps it: the mean of none would be NaN."""
    losses = torch.arange(number, 0, -1.0)
    counted = task(drop_worst=dropped, drop_worst_after=0).counted_losses(losses)
    assert counted.tolist() == [False] * (number - kept) + [True] * kept


def test_a_micro_batch_of_which_nothing_counts_has_loss_0() -> None:
    learner, losses = task(drop_worst_after=0), torch.ones(3, requires_grad=True)
    nothing = ModelBatch({"targets": torch.arange(3), "counted": torch.zeros(3, dtype=torch.bool)}, ["1"])
    mean = learner.mean_loss(losses, nothing, 1)
    mean.backward()
    assert mean == learner.count_losses(nothing, 1) == 0
    assert not losses.grad.any()


def test_of_equal_losses_the_first_count() -> None:
    counted = task(drop_worst=0.5, drop_worst_after=0).counted_losses(torch.tensor([2.0, 1.0, 2.0, 2.0]))
    assert counted.tolist() == [True, True, False, False]
