"""Captions: what is learned, and the words that are found, are the original's."""

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
    found = parity.tensors_of("caption_inputs.safetensors")
    return {**found, "padding_mask": found["padding_mask"].bool()}


def batch() -> ModelBatch:
    """The recorded inputs as our processor would give them."""
    given = inputs()
    positions = given["language_masked_pos"].nonzero()
    targets = given["language_tokens"][given["language_masked_pos"].bool()]
    tensors = {
        "image": given["image"], "tokens": given["masked_tokens"], "padding": given["padding_mask"],
        "noise": torch.zeros(len(targets), 0, 2), "positions": positions, "targets": targets,
    }  # fmt: skip
    return ModelBatch(tensors, [])


def task(**changes: Any) -> CaptionTask:
    return CaptionTask(
        CaptionSettings(**changes), 32, XlmrTokenizer(parity.path("tokenizer.model").read_bytes())
    )


@pytest.fixture(scope="module")
def net() -> CaptionNet:
    return parity.caption_net().eval()


def test_parity_beit3_caption_logits_of_hidden_words(net: CaptionNet) -> None:
    expected = parity.tensors_of("expected_caption.safetensors")
    with torch.no_grad():
        parity.close(
            masked_token_logits(net, batch()), expected["logits_at_masked"], TOLERANCE, "hidden words"
        )


@pytest.mark.parametrize(
    ("tokens", "name"),
    [("masked_tokens", "logits_all_positions"), ("language_tokens", "logits_unmasked_all_positions")],
)
def test_parity_beit3_caption_logits_everywhere(net: CaptionNet, tokens: str, name: str) -> None:
    given = inputs()
    with torch.no_grad():
        found = net.mlm_head(net.hidden_states(given["image"], given[tokens], given["padding_mask"]))
    real = ~given["padding_mask"]
    parity.close(found[real], parity.tensors_of("expected_caption.safetensors")[name][real], TOLERANCE, name)


@pytest.mark.parametrize(("kept", "after"), [("keep_all", 12000), ("drop_worst", 0)])
def test_parity_beit3_caption_loss(kept: str, after: int) -> None:
    expected = parity.tensors_of("expected_caption.safetensors")
    net = parity.caption_net().train()
    loss = task(drop_worst_after=after).loss(net, batch(), 1)
    loss.backward()
    parity.close(loss, expected[f"loss.{kept}"], 1e-4, kept)
    norm = clip_grad_norm([p for p in net.parameters() if p.grad is not None], None)
    assert norm.item() == pytest.approx(expected[f"grad_norm.{kept}"].item(), rel=1e-4)
    if kept == "keep_all":
        return
    found = parity.originals((n, p.grad) for n, p in net.named_parameters() if p.grad is not None)
    for name in (name for name in expected if name.startswith("grad.")):
        parity.close(found[name.removeprefix("grad.")], expected[name], 1e-4, name)
    table = expected["embed_positions_B_grad_rows0_40"]
    parity.close(found["beit3.encoder.embed_positions.B.weight"][: len(table)], table, 1e-4, "places")


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
    """Weights no word depends on rest in ours; the original's shrink, which no loss can see."""
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
def test_parity_beit3_caption_word_by_word(net: CaptionNet) -> None:
    """With the words before kept, a word's logits are those of the whole caption at once."""
    expected = parity.tensors_of("expected_caption.safetensors")
    given, words = inputs(), parity.tensors_of("incremental_tokens.safetensors")["tokens"]
    mask = parity.json_of("config.json")["mask_id"]
    picture = net.encode_image(given["image"])
    past = net.empty_kv_cache(len(words), words.shape[1] + 2, picture[0][0])
    steps = expected["incremental.logits"].shape[1]
    fed = torch.cat([torch.full_like(words[:, :1], BOS_ID), words], 1)
    for step in range(steps):
        found = net.next_token_logits(fed[:, step], mask, picture, past)
        parity.close(found, expected["incremental.logits"][:, step], TOLERANCE, f"word {step}")
    parity.close(found, expected["incremental.full_last"], TOLERANCE, "the last word, without a past")
    whole = torch.cat([fed[:, :steps], torch.full_like(fed[:, :1], mask)], 1)
    again = net.mlm_head(net.hidden_states(given["image"], whole, None)[:, -1])
    parity.close(found, again, TOLERANCE, "the last word, all at once")


@pytest.mark.parametrize("number", range(len(parity.json_of("expected_beam_search.json"))))
@torch.no_grad()
def test_parity_beit3_beam_search(net: CaptionNet, number: int) -> None:
    case, mask = parity.json_of("expected_beam_search.json")[number], parity.json_of("config.json")["mask_id"]
    images = parity.tensors_of("beam_images.safetensors")["image"]
    search = BeamSearchSettings(case["num_beams"], case["max_len"], case["length_penalty"])
    found = run_beam_search(net, images, search, mask)
    for one, ids, score, caption in zip(
        found, case["decoded_ids"], case["scores"], case["captions"], strict=True
    ):
        said = [
            BOS_ID,
            *one.token_ids,
            mask,
            EOS_ID,
        ]  # the original leaves the mask where the last word would stand
        assert said + [PAD_ID] * (search.max_length - len(said)) == ids
        assert one.score == pytest.approx(score, abs=1e-4)
        assert task().tokenizer.decode(one.token_ids) == caption


@torch.no_grad()
def test_a_picture_alone_and_in_a_batch_get_one_caption(net: CaptionNet) -> None:
    images = parity.tensors_of("beam_images.safetensors")["image"]
    mask = parity.json_of("config.json")["mask_id"]
    together = run_beam_search(net, images, BeamSearchSettings(), mask)
    alone = [run_beam_search(net, image[None], BeamSearchSettings(), mask)[0] for image in images]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]


def test_without_smoothing_the_loss_is_cross_entropy() -> None:
    logits, words = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)), torch.arange(5)
    expected = torch.nn.functional.cross_entropy(logits, words, reduction="none")
    parity.close(masked_token_losses(logits, words, 0.0), expected, 1e-6, "cross-entropy")
