"""Training goes the original's way, step by step."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from kovqa_core.models.beit3.family import Beit3Model
from kovqa_core.models.beit3.vqa import beit3_vqa_logits
from kovqa_core.settings.recipe import OptimSettings
from kovqa_core.train.optim import clip_grad_norm, make_optimizer, set_learning_rate
from torch import Tensor

from tests import parity

Case = dict[str, Any]


@dataclass
class Trained:
    """What a recorded training gave with our code."""

    case: Case
    model: Beit3Model
    losses: list[float]
    norms: list[float | None]
    logits: Tensor


def recorded() -> list[Case]:
    cases = parity.json_of("expected_train_vqa.json")
    assert cases
    return cases


def optim_of(case: Case) -> OptimSettings:
    """The original ignores the head's factor beside layer decay, ours refuses it; 0 means none."""
    head = case["task_head_lr_weight"] if case["layer_decay"] >= 1 else 0
    return OptimSettings(
        steps=case["steps"],
        global_batch=1,
        lr=max(case["lr_per_update"]),
        weight_decay=case["weight_decay"],
        betas=case["betas"],
        eps=case["eps"],
        layer_decay=case["layer_decay"],
        head_lr_scale=head or 1.0,
        max_grad_norm=case["clip_grad"],
    )


def rest_as_recorded(model: Beit3Model) -> list[torch.nn.Parameter]:
    """Let weights that nothing reads decay, as they did in the original; returns them.

    The original gives them gradients of exactly zero, so that AdamW only shrinks them; ours leaves
    them out of the optimizer. Neither changes an answer, but the recorded final norms are those of
    shrunken weights. Those recorded without any gradient (the mask token) rest there too.
    """
    norms = parity.json_of("expected_vqa_grad_norms.json")
    shrinking = []
    for name, parameter in model.net.named_parameters():
        if not parameter.requires_grad:
            recorded_norms = [norms[original] for original in parity.split(name, parameter)]
            if all(norm == 0 for norm in recorded_norms):
                parameter.requires_grad_(True)
                shrinking.append(parameter)
    assert shrinking
    return shrinking


def batches() -> list[Any]:
    tensors = parity.tensors_of("train_batches_vqa.safetensors")
    parts = ("image", "language_tokens", "padding_mask", "labels")
    count = sum(name.startswith("image.") for name in tensors)
    return [parity.vqa_batch(*(tensors[f"{part}.{i}"] for part in parts)) for i in range(count)]


def train(case: Case) -> Trained:
    """The official loop: rate set at the first micro-batch of a step, norm taken before clipping."""
    model = parity.vqa_model().train()
    shrinking = rest_as_recorded(model)
    optim = optim_of(case)
    optimizer = make_optimizer(model, model, optim)
    trained = [p for p in model.parameters() if p.requires_grad]
    together = case["update_freq"]
    losses: list[float] = []
    norms: list[float | None] = []
    for number, batch in zip(range(case["steps"]), batches(), strict=False):
        update, place = divmod(number, together)
        if place == 0:
            set_learning_rate(optimizer, case["lr_per_update"][update])
        loss = model(batch, update)["loss"]
        losses.append(loss.item())
        (loss / together).backward()
        if place < together - 1:
            norms.append(None)
            continue
        for parameter in shrinking:
            parameter.grad = torch.zeros_like(parameter)
        norms.append(clip_grad_norm(trained, optim.max_grad_norm).item())
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        after = beit3_vqa_logits(model.eval().net, parity.inputs_batch())
    return Trained(case, model, losses, norms, after)


@functools.cache
def trainings() -> list[Trained]:
    return [train(case) for case in recorded()]


def test_parity_beit3_training_losses() -> None:
    """Each micro-batch's loss, before it is divided by the accumulation."""
    for trained in trainings():
        assert trained.losses == pytest.approx(trained.case["losses"], rel=2e-4), trained.case["name"]


def test_parity_beit3_training_gradient_norms() -> None:
    for trained in trainings():
        wanted = trained.case["grad_norms"]
        assert [n is None for n in trained.norms] == [n is None for n in wanted], trained.case["name"]
        ours = [n for n in trained.norms if n is not None]
        assert ours == pytest.approx([n for n in wanted if n is not None], rel=1e-3), trained.case["name"]


def test_parity_beit3_training_logits_afterwards() -> None:
    """A single Adam step is nearly the gradient's sign, so an element near 0 may go the other way."""
    for trained in trainings():
        allowed = 5e-3 if trained.case["name"] == "one_step_const_lr" else 1e-3
        wanted = torch.tensor(trained.case["logits_after"])
        parity.close(trained.logits, wanted, allowed, trained.case["name"])


def test_parity_beit3_training_final_parameters() -> None:
    for trained in trainings():
        ours = parity.originals(trained.model.net.named_parameters())
        wanted = trained.case["final_params"]
        parity.close_norms(
            {name: tensor.double().norm().item() for name, tensor in ours.items()},
            {name: row["norm"] for name, row in wanted.items()},
            rel=1e-4,
        )


def test_parity_beit3_training_as_shipped_answers_the_same() -> None:
    """Without the shrinking of unread weights, as our training does it, logits are the same."""
    for trained in trainings():
        wanted = trained.logits
        model = parity.vqa_model().train()
        optim = optim_of(trained.case)
        optimizer = make_optimizer(model, model, optim)
        unread = {id(p) for p in model.net.unused_parameters()}
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert not unread & held
        together = trained.case["update_freq"]
        for number, batch in zip(range(trained.case["steps"]), batches(), strict=False):
            set_learning_rate(optimizer, trained.case["lr_per_update"][number // together])
            (model(batch, 0)["loss"] / together).backward()
            if number % together == together - 1:
                clip_grad_norm([p for p in model.parameters() if p.requires_grad], optim.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
        with torch.no_grad():
            parity.close(
                beit3_vqa_logits(model.eval().net, parity.inputs_batch()), wanted, 1e-4, trained.case["name"]
            )
