"""Every family learns and answers on device cuda: right devices, right dtypes; and what a step costs there.

The costs stand in tests/fixtures/gpu_counts.json. Where a change makes them smaller, or must make them larger, write
the table anew: KOVQA_RENEW_COUNTS=1 python -m pytest tests/models/test_simulated_cuda.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from kovqa_core.data.decoding import DecodingOptions
from kovqa_core.data.example import Answer
from kovqa_core.models import family
from kovqa_core.models.batches import ExampleProcessor, ModelBatch
from kovqa_core.models.family import FamilyModel
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.resolve import load_profile
from kovqa_core.train.strategies.base import make_autocast
from torch import Tensor, nn

from bench.gpu_simulation.counting import SimulatedGpu
from tests.models.test_contract import CASES, opened, recipe
from tests.simulated_cuda import simulated_cuda, upload_batch

__all__ = ["recipe"]  # the fixture: every family with every task

TABLE = Path(__file__).parents[1] / "fixtures" / "gpu_counts.json"
TOLERANCE = 0.05  # of kernels and bytes
SAME_ANSWERS = ("vlm:projector and vision", "vlm:full", "fusion:product with weights")  # as another case's
RENEW = "KOVQA_RENEW_COUNTS" in os.environ
CUDA = torch.device("cuda", 0)


@dataclass(frozen=True)
class Counted:
    """Of one forward pass of three examples."""

    kernels: int
    kilobytes: int
    waits: int


def counted(gpu: SimulatedGpu) -> Counted:
    counts = gpu.counts
    moved = (counts.product_bytes + counts.other_bytes) // 1000
    return Counted(counts.kernels.total(), moved, counts.waits.total())


def libraries() -> dict[str, str]:
    return {
        library.__name__: ".".join(library.__version__.split(".")[:2]) for library in (torch, transformers)
    }


@dataclass(frozen=True)
class OnGpu:
    """A model and two batches of three examples, one to learn from and one to answer."""

    gpu: SimulatedGpu
    model: FamilyModel
    processor: ExampleProcessor
    learn: ModelBatch
    ask: ModelBatch


@pytest.fixture
def on_gpu(recipe: Recipe) -> Iterator[OnGpu]:
    index, answers = opened(recipe)
    model, processor, _ = family.create_model(recipe, answers)
    examples, rng = list(index.split("train"))[:3], np.random.default_rng(1)
    learn, ask = (
        processor.collate([processor.encode(e, Path(index.images), train=train, rng=rng) for e in examples])
        for train in (True, False)
    )
    if recipe.task == "caption":  # long enough to grow a cache
        task: Any = model.task
        task.search = replace(task.search, max_length=6)
    with simulated_cuda() as gpu:
        gpu.upload_module(model)
        yield OnGpu(gpu, model, processor, upload_batch(gpu, learn), upload_batch(gpu, ask))


def autocast(precision: str) -> torch.autocast:
    """As training and its evaluations do it."""
    return make_autocast(load_profile("h100x8").model_copy(update={"precision": precision}), CUDA)


def loss_of(on: OnGpu, step: int = 0) -> float:
    with autocast("bf16"):
        loss = on.model.train()(on.learn, step)["loss"]
    assert loss.device == CUDA
    assert loss.dtype == torch.float32
    value = on.gpu.value_of(loss)
    assert value is not None
    return float(value)


def answers_of(on: OnGpu, precision: str = "bf16", ask: ModelBatch | None = None) -> list[Answer]:
    on.model.eval()
    # Not in inference mode: there FakeTensors of a device that this torch is not built for cannot be copied.
    with torch.no_grad(), autocast(precision):
        answers = on.model.answer(ask or on.ask)
    assert len(answers) == 3
    assert all(0 <= answer.score <= 1 for answer in answers)
    return answers


def test_every_family_on_cuda(on_gpu: OnGpu, request: pytest.FixtureRequest) -> None:
    on_gpu.gpu.counts.clear()
    assert np.isfinite(loss_of(on_gpu))
    learning = counted(on_gpu.gpu)
    weight = on_gpu.model.loss_weight(on_gpu.learn, 0)
    assert not isinstance(weight, Tensor) or weight.device == CUDA
    costs, case = {"loss": learning}, request.node.callspec.params["recipe"]
    if case not in SAME_ANSWERS:
        on_gpu.gpu.counts.clear()
        answers_of(on_gpu)
        costs["answer"] = counted(on_gpu.gpu)
    compare(case, costs)
    with torch.no_grad():
        empty = on_gpu.model(ModelBatch({}, []), 0)["loss"]
    assert empty.device == CUDA


def compare(case: str, new: dict[str, Counted]) -> None:
    """See that a case costs what the table says."""
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {"libraries": libraries(), "counts": {}}
    if RENEW:
        table["libraries"] = libraries()
        table["counts"][case] = {name: asdict(counts) for name, counts in new.items()}
        counts = {name: table["counts"][name] for name in CASES if name in table["counts"]}
        TABLE.write_text(json.dumps({**table, "counts": counts}, indent=1) + "\n")
        return
    if (
        table["libraries"] != libraries()
    ):  # of other versions other kernels: those were run, and are not compared
        return
    for name, was in table["counts"][case].items():
        now = asdict(new[name])
        assert now["waits"] == was["waits"], f"{case}, {name}: {RENEW_HINT}"
        for key in ("kernels", "kilobytes"):
            assert now[key] == pytest.approx(was[key], rel=TOLERANCE), f"{case}, {name}, {key}: {RENEW_HINT}"


RENEW_HINT = "if this is meant, write tests/fixtures/gpu_counts.json anew (see the head of this file)"


@pytest.mark.parametrize("recipe", ["beit3:caption"], indirect=True)
def test_captions_on_cuda(on_gpu: OnGpu) -> None:
    """With beams and without, and where the largest losses are left out."""
    model: Any = on_gpu.model
    for beams, precision in ((1, "bf16"), (2, "fp16")):
        model.task.set_num_beams(beams)
        answers_of(on_gpu, precision)
    step = model.task.settings.drop_worst_after + 1
    losses = model(on_gpu.learn, step)["losses"].detach()
    assert losses.device == CUDA
    assert model.counted_losses(losses, step).device == CUDA
    assert np.isfinite(loss_of(on_gpu, step))


@pytest.mark.parametrize("recipe", ["fusion:product"], indirect=True)
def test_the_likeliest_are_not_waited_for_by_themselves(on_gpu: OnGpu, recipe: Recipe) -> None:
    set_top_k = family.load_family(recipe.family).set_top_k
    assert set_top_k is not None
    plain, waits = answers_of(on_gpu), list[int]()
    for top_k in (1, 5):
        set_top_k(on_gpu.model, top_k)
        on_gpu.gpu.counts.clear()
        answers = answers_of(on_gpu)
        waits.append(on_gpu.gpu.counts.waits.total())
        assert [each.text for each in answers] == [each.text for each in plain]
    assert {len(each.likeliest) for each in answers} == {5}
    assert waits[0] == waits[1]


@pytest.mark.parametrize("recipe", ["vlm:from nothing"], indirect=True)
def test_ways_to_answer_on_cuda(on_gpu: OnGpu, recipe: Recipe) -> None:
    set_decoding = family.load_family(recipe.family).set_decoding
    assert set_decoding is not None
    listed = DecodingOptions(answers=("두 개", "세 개", "빨간색"))
    for decoding in (listed, DecodingOptions(temperature=0.8, seed=3)):
        set_decoding(on_gpu.model, on_gpu.processor, decoding)
        on_gpu.model.top_k = 3 if decoding.answers else 1
        answers = answers_of(on_gpu)
        assert not decoding.answers or {answer.text for answer in answers} <= set(decoding.answers)
    set_decoding(on_gpu.model, on_gpu.processor, DecodingOptions(choices=True))
    offered = ModelBatch(
        on_gpu.ask.tensors, on_gpu.ask.ids, choices=[("예", "아니요"), ("하나", "둘"), ("예", "아니요")]
    )
    assert all(
        answer.text in row
        for answer, row in zip(answers_of(on_gpu, ask=offered), offered.choices, strict=True)
    )


FAULTS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "a CPU's tensor": lambda gpu, _: gpu + torch.ones(4),
    "a CPU's tensor joined": lambda gpu, _: torch.cat([gpu, torch.ones(4)]),
    "a CPU's index": lambda gpu, _: torch.where(torch.ones(4, dtype=torch.bool), gpu, gpu),
    "lerp of two dtypes": lambda gpu, half: torch.lerp(half, half, gpu),
    "index_put of two dtypes": lambda gpu, half: half.index_put_((torch.zeros(4, dtype=torch.long, device="cuda"),), gpu),
    "product of two dtypes": lambda gpu, half: gpu[None] @ half[:, None],
    "LayerNorm of two dtypes": lambda gpu, half: nn.functional.layer_norm(half, (4,), gpu, gpu),
    "numpy": lambda gpu, _: gpu.numpy(),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str) -> None:
    """What CUDA refuses is refused here."""
    tensor, half = torch.ones(4), torch.ones(4, dtype=torch.bfloat16)
    with simulated_cuda() as gpu:
        arguments = gpu.upload(tensor), gpu.upload(half)
        with pytest.raises((RuntimeError, TypeError)):
            FAULTS[fault](*arguments)


def test_waits_are_counted() -> None:
    tensor = torch.ones(4)
    with simulated_cuda() as gpu:
        x = gpu.upload(tensor)
        assert (x.sum().item(), x.tolist(), bool((x > 2).any())) == (4, [1, 1, 1, 1], False)
        assert x[x > 0].shape == (4,)
        x.cpu()
        torch.ones(2).to("cuda")
        assert gpu.counts.waits.total() == 6
        torch.ones(2).to("cuda", non_blocking=True)
        assert x[:2].shape == (2,)
        assert gpu.counts.waits.total() == 6
