"""Loss, gradients and validation score of VQA are the original's."""

from __future__ import annotations

import pytest
import torch
from kovqa_core.data.answers import normalise_answer
from kovqa_core.data.example import Example
from kovqa_core.evaluate.answer_scores import score_answers
from kovqa_core.models.beit3.family import Beit3Model
from kovqa_core.models.beit3.vqa import vqa_loss
from kovqa_core.train.optim import clip_grad_norm
from torch import Tensor

from tests import parity

Learned = tuple[Beit3Model, Tensor, dict[str, Tensor]]


@pytest.fixture(scope="module")
def learned() -> Learned:
    """The model after one backward pass, its loss, and what was recorded."""
    expected = parity.tensors_of("expected_vqa_loss.safetensors")
    model = parity.vqa_model().train()
    loss = model(parity.inputs_batch(expected["labels"]), 0)["loss"]
    loss.backward()
    return model, loss.detach(), expected


def gradients(model: Beit3Model) -> dict[str, Tensor]:
    """Gradients under the original's names, of all parameters that have one."""
    return parity.originals((n, p.grad) for n, p in model.net.named_parameters() if p.grad is not None)


def test_parity_beit3_vqa_loss(learned: Learned) -> None:
    _, loss, expected = learned
    parity.close(loss, expected["loss"], 1e-4, "loss")
    recorded = parity.tensors_of("expected_forward.safetensors")["vqa.logits"]
    parity.close(vqa_loss(recorded, expected["labels"]), expected["loss"], 1e-4, "loss of recorded logits")


def test_parity_beit3_vqa_gradients(learned: Learned) -> None:
    model, _, expected = learned
    found = gradients(model)
    wanted = {name.removeprefix("grad."): g for name, g in expected.items() if name.startswith("grad.")}
    assert wanted
    for name, gradient in wanted.items():
        parity.close(found[name], gradient, 1e-4, name)


def test_parity_beit3_vqa_gradient_norm_of_all(learned: Learned) -> None:
    model, _, expected = learned
    total = clip_grad_norm([p for p in model.parameters() if p.requires_grad], None)
    assert total.item() == pytest.approx(expected["grad_norm"].item(), rel=1e-4)


def test_parity_beit3_vqa_gradient_norm_of_each(learned: Learned) -> None:
    """Recorded as null or exactly 0: ours has no gradient, or one of exact zeros (q beside k and v)."""
    model, _, _ = learned
    found = gradients(model)
    expected = parity.json_of("expected_vqa_grad_norms.json")
    assert set(parity.originals(model.net.named_parameters())) == set(expected)
    for name, norm in expected.items():
        ours = found[name].norm().item() if name in found else None
        if norm is None:
            assert ours is None, name
        elif norm == 0:
            assert not ours, name
        else:
            assert ours == pytest.approx(norm, rel=1e-3), name


def test_parity_beit3_vqa_unread_parameters_are_those_without_gradient(learned: Learned) -> None:
    """What the network sets aside as never read has no gradient in the original either."""
    model, _, _ = learned
    norms = parity.json_of("expected_vqa_grad_norms.json")
    resting = parity.originals((n, p) for n, p in model.net.named_parameters() if not p.requires_grad)
    assert resting
    assert all(not norms[name] for name in resting)


@torch.no_grad()
def test_parity_beit3_vqa_validation() -> None:
    """Predictions, and their score: the target at the most likely class, in percent."""
    expected = parity.json_of("expected_vqa_eval.json")
    labels = parity.tensors_of("vqa_eval_labels.safetensors")["labels"]
    names = [f"class {i}" for i in range(labels.shape[1])]
    for label, row in zip(expected["top1_class"], expected["predictions"], strict=True):
        names[label] = row["answer"]
    model = parity.vqa_model(names).eval()
    inputs = parity.tensors_of("inputs.safetensors")
    given = inputs["image"], inputs["language_tokens"], inputs["padding_mask"]
    predicted: list[str] = []
    for size in expected["batches"]:
        rows = slice(len(predicted), len(predicted) + size)
        predicted += [answer.text for answer in model.answer(parity.vqa_batch(*(t[rows] for t in given)))]
    assert predicted == [row["answer"] for row in expected["predictions"]]

    examples = [
        Example(
            str(row["question_id"]),
            "",
            "",
            {normalise_answer(n): s for n, s in zip(names, soft, strict=True) if s},
        )
        for row, soft in zip(expected["predictions"], labels[: len(predicted)].tolist(), strict=True)
    ]
    everything = score_answers(zip(examples, predicted, strict=True)).total
    assert everything.rows == len(predicted)
    metric = expected["stats"][expected["metric_key"]]
    assert 100 * everything.score == pytest.approx(metric, rel=0, abs=1e-3)
