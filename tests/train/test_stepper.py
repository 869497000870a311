"""Where all processes go through the model together, none may stay away."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kovqa_core.errors import DataError
from kovqa_core.models.batches import ModelBatch
from kovqa_core.train.strategies.ddp import TrainStrategy
from torch import Tensor, nn

from tests.conftest import Small
from tests.train.test_resume import ALONE, CPU, make


class Line(nn.Module):
    """A model with one weight, that counts how often it is gone through."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        self.calls += 1
        return {"loss": self.weight * batch.tensors["x"].sum()}


class Together(TrainStrategy):
    """A stepper whose forward passes are a common matter, without other processes."""

    together = True

    def wrap(self) -> None:
        self.net = self.model


def test_a_batch_without_a_usable_example_goes_through_the_model_and_counts_nothing(
    small: Small, tmp_path: Path
) -> None:
    model = Line()
    stepper = Together(model, make(small, tmp_path / "run"), ALONE, CPU)
    empty, full = ModelBatch({}, [], ["7"]), ModelBatch({"x": torch.tensor([3.0])}, ["8"])
    with pytest.raises(DataError, match="first batch can be learned from: 7"):
        stepper.backward(empty, 0, last=True)
    assert stepper.backward(full, 0, last=True) == 3
    before = model.weight.grad
    assert before is not None
    kept = before.clone()
    assert stepper.backward(empty, 0, last=True) == 0
    assert model.calls == 2
    assert torch.equal(kept, before)
