"""Where a forward pass needs all processes, none may stay away."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kovqa_core.data.example import Answer
from kovqa_core.errors import DataError
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.family import FamilyModel
from kovqa_core.train.strategies.base import TrainStrategy
from torch import Tensor, nn

from tests.conftest import Small
from tests.train.test_resume import ALONE, CPU, make_small_run


class OneWeightModel(FamilyModel):
    """A model with one weight, that counts its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        self.calls += 1
        return {"loss": self.weight * batch.tensors["x"].sum()}

    def answer(self, batch: ModelBatch) -> list[Answer]:
        return []


class CollectiveStrategy(TrainStrategy):
    """A strategy whose forward passes are collective, without other processes."""

    collective_forward = True

    def wrap(self) -> None:
        self.wrapped_model = self.model


def test_a_batch_without_a_usable_example_goes_through_the_model_with_weight_0(
    small: Small, tmp_path: Path
) -> None:
    model = OneWeightModel()
    strategy = CollectiveStrategy(model, make_small_run(small, tmp_path / "run"), ALONE, CPU)
    empty, full = ModelBatch({}, [], ["7"]), ModelBatch({"x": torch.tensor([3.0])}, ["8"])
    with pytest.raises(DataError, match="first batch can be learned from: 7"):
        strategy.backward(empty, 0, last=True)
    assert strategy.backward(full, 0, last=True).mean == 3
    assert model.weight.grad is not None
    gradient = model.weight.grad.clone()
    assert strategy.backward(empty, 0, last=True).mean == 0
    assert model.calls == 2
    assert torch.equal(gradient, model.weight.grad)
