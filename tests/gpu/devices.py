"""Where a check runs, and what the checks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kovqa_core.data.example import Example
from kovqa_core.models import family
from kovqa_core.models.batches import ExampleProcessor, ModelBatch
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import Run, make_run

from tests.conftest import Small
from tests.cuda_autocast import cuda_autocast
from tests.models.test_contract import CASES, opened

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GPU_MARKS = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
)
FEW = ("beit3:vqa", "beit3:caption", "fusion:grid", "vlm:lora")  # on a CPU; on a GPU every case there is
TinyVlm = Callable[[str], Path]


def on_devices(cpu: Iterable[Any] = ((),), cuda: Iterable[Any] = ((),)) -> list[Any]:
    """Parameters of a check: (device, …) for each device; those of CUDA are marked."""

    def words(value: Any) -> tuple[Any, ...]:
        return value if isinstance(value, tuple) else (value,)

    def named(device: torch.device, value: Any, marks: tuple[pytest.MarkDecorator, ...] = ()) -> Any:
        said = [str(word).removeprefix("torch.") for word in (device, *words(value))]
        return pytest.param(device, *words(value), marks=marks, id="-".join(said))

    return [*(named(CPU, each) for each in cpu), *(named(CUDA, each, GPU_MARKS) for each in cuda)]


def autocast_on(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """CUDA's autocast; on a CPU the emulation of it. fp32: none."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast("cuda", dtype) if device.type == "cuda" else cuda_autocast(dtype)


@dataclass(frozen=True)
class Built:
    """A small model of one case, with a batch to learn from and one to answer.

    Attributes:
        recipe: what it is.
        model: on the device.
        processor: makes batches.
        learn, ask: batches on the device.
        examples, images: what they were made of.
    """

    recipe: Recipe
    model: family.FamilyModel
    processor: ExampleProcessor
    learn: ModelBatch
    ask: ModelBatch
    examples: list[Example]
    images: Path

    def on(self, device: torch.device) -> Built:
        """The same on another device; the model moves there."""
        return Built(
            self.recipe, self.model.to(device), self.processor, self.learn.to(device), self.ask.to(device),
            self.examples, self.images,
        )  # fmt: skip


def case_settings(case: str, small: Small, tiny_vlm: TinyVlm, *sets: str) -> Any:
    """Recipe and profile of a case of tests/models/test_contract.py."""
    name, small_sets = CASES[case]
    flags = {"data.index": str(small.captions if case.endswith("caption") else small.index)}
    if not name.startswith("tiny-vlm"):
        flags["model.tokenizer"] = str(small.tokenizer)
    elif name == "tiny-vlm":
        flags["model.base"] = str(tiny_vlm("qwen3_vl"))
    return resolve_settings(name, "cpu", (*small_sets, *sets), flags)


def case_run(case: str, small: Small, tiny_vlm: TinyVlm, folder: Path, *sets: str) -> Run:
    """A run of a case, in a new folder."""
    settings = case_settings(case, small, tiny_vlm, *sets)
    folder.mkdir()
    return make_run(settings.recipe, settings.profile, folder, [])


def build(
    case: str, small: Small, tiny_vlm: TinyVlm, device: torch.device, *sets: str, examples: int = 4
) -> Built:
    """A model of a case, and its batches."""
    recipe = case_settings(case, small, tiny_vlm, *sets).recipe
    index, answers = opened(recipe)
    model, processor, _ = family.create_model(recipe, answers)
    chosen, images = list(index.split("train"))[:examples], Path(index.images)

    def batch(*, train: bool) -> ModelBatch:
        rngs = [np.random.default_rng([1, n]) for n in range(len(chosen))]
        return processor.collate(
            [processor.encode(e, images, train=train, rng=r) for e, r in zip(chosen, rngs, strict=True)]
        )

    return Built(recipe, model, processor, batch(train=True), batch(train=False), chosen, images).on(device)


def relative_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest expected number."""
    actual, expected = actual.float().cpu(), expected.float().cpu()
    return float((actual - expected).abs().max() / expected.abs().max())
