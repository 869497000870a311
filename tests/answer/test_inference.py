"""Batches of a table: halved where they do not fit, and read while the next one is computed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from kovqa_core.answer import batch_size, inference
from kovqa_core.answer.inference import answer_examples
from kovqa_core.data.decoding import GREEDY_DECODING, DecodingOptions
from kovqa_core.data.example import Answer, Example
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import DataError, MachineError
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.checkpoint_info import read_checkpoint_info
from kovqa_core.models.family import FamilyModel, ReadAnswers
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import Run
from torch import Tensor


class Processor:
    """Keeps an example as it is; one without a question cannot be used."""

    def encode(self, example: Example, images: Path, *, train: bool, rng: np.random.Generator) -> str:
        if not example.question:
            raise DataError(f"id {example.id}: asks nothing")
        return example.id

    def collate(self, items: Any) -> ModelBatch:
        return ModelBatch({}, list(items))


class Model(FamilyModel):
    """Answers with the id; has no memory for more than `room` rows."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.log = room, list[str]()

    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        raise NotImplementedError

    def answer(self, batch: ModelBatch) -> list[Answer]:
        return self.begin_answers(batch)()

    def begin_answers(self, batch: ModelBatch) -> ReadAnswers:
        if len(batch.ids) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.log.append(f"begin {batch.ids[0]}")

        def read() -> list[Answer]:
            self.log.append(f"read {batch.ids[0]}")
            return [Answer(id, 1.0) for id in batch.ids]

        return read


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU is one by name only: its queues are stand-ins."""
    queue = SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: queue)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: queue)
    return torch.device(request.param)


def answers(model: Model, device: torch.device, batch: int, faulty: tuple[int, ...] = ()) -> Any:
    examples = [Example(str(n), "x.png", "" if n in faulty else "?") for n in range(23)]
    faults: dict[int, str] = {}
    alone = RankInfo(0, 0, 1)
    given = answer_examples(
        model, Processor(), examples, Path(), alone, device, batch, on_fault=faults.__setitem__
    )
    return [(number, answer.text) for number, answer in given], faults


@pytest.mark.filterwarnings("ignore:'pin_memory'")
@pytest.mark.parametrize(("room", "batch"), [(8, 8), (3, 16), (1, 100)])
def test_what_does_not_fit_is_halved_and_nothing_is_lost(
    device: torch.device, room: int, batch: int, capsys: pytest.CaptureFixture[str]
) -> None:
    given, faults = answers(Model(room), device, batch, faulty=(4, 22))
    assert given == [(n, str(n)) for n in range(23) if n not in (4, 22)]
    assert faults.keys() == {4, 22}
    said = capsys.readouterr().err.count("memory ran out with")
    assert said == (min(batch, 23) > room), "once, and only where it did"


@pytest.mark.filterwarnings("ignore:'pin_memory'")
def test_a_row_that_does_not_fit_alone_ends_it(device: torch.device) -> None:
    with pytest.raises(MachineError, match=r"not even one row fits.*CUDA out of memory"):
        answers(Model(0), device, 8)


def test_other_errors_are_not_taken_for_memory(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Model, batch: ModelBatch) -> ReadAnswers:
        raise RuntimeError("expected a Half")

    monkeypatch.setattr(Model, "begin_answers", fail)
    with pytest.raises(RuntimeError, match="expected a Half"):
        answers(Model(9), device, 4)


@pytest.mark.filterwarnings("ignore:'pin_memory'")
def test_a_gpu_has_the_next_batch_before_the_last_is_read(device: torch.device) -> None:
    model = Model(9)
    answers(model, device, 9)
    if device.type == "cuda":
        assert model.log == ["begin 0", "begin 9", "read 0", "begin 18", "read 9", "read 18"]
    else:
        assert model.log == ["begin 0", "read 0", "begin 9", "read 9", "begin 18", "read 18"]


def test_a_gpus_memory_says_how_many_rows(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, gpu, of_list = trained / "step-000006", torch.device("cuda"), DecodingOptions(answers=("예",))
    info = read_checkpoint_info(folder)
    row = batch_size._row_bytes(folder, info, "bf16")
    assert row is not None
    assert 0 < row < batch_size._row_bytes(folder, info, "fp32")  # type: ignore[operator]

    def chosen(free: float, rows: int = 10**6, decoding: DecodingOptions = GREEDY_DECODING) -> int:
        monkeypatch.setattr(batch_size, "free_memory", lambda _: free)
        return batch_size.choose_batch(folder, info, gpu, "bf16", rows, 12, decoding)

    assert [chosen(row * n / 0.7) for n in (1, 63, 64.5, 130, 10**6)] == [1, 32, 64, 128, 256]
    assert chosen(row / 2) == 1
    assert chosen(row * 65 / 0.7, decoding=of_list) == 8
    assert chosen(row * 10**6, rows=1000) == 64, "12 loaders have a batch each"
    assert chosen(row * 10**6, rows=3) == 32
    assert batch_size.choose_batch(folder, info, torch.device("cpu"), "fp32", 10**6, 0, GREEDY_DECODING) == 32


def test_an_evaluation_takes_what_a_training_step_takes() -> None:
    """On a GPU without gradients more rows at once; the same number after every resume. On a CPU a micro-batch."""

    def rows(profile: str, *sets: str) -> tuple[int, int]:
        resolved = resolve_settings("kobeit3", profile, sets, {})
        micro_batch = resolved.profile.max_micro_batch("kobeit3")
        run = Run.model_construct(recipe=resolved.recipe, profile=resolved.profile, micro_batch=micro_batch)
        return micro_batch, batch_size.evaluation_batch(run)

    micro_batch, evaluated = rows("a100x1", "profile.micro_batch={default: 16}")
    assert micro_batch == 16
    assert 64 <= evaluated <= 256
    checkpointed = rows(
        "a100x1", "profile.micro_batch={default: 16}", "profile.activation_checkpointing=true"
    )[1]
    assert micro_batch <= checkpointed < evaluated
    micro_batch, evaluated = rows("cpu")
    assert evaluated == micro_batch


def test_a_fault_of_cublas_for_want_of_memory_is_known() -> None:
    error = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    assert inference.out_of_memory_text(error).startswith("CUDA error: CUBLAS")
    assert inference.out_of_memory_text(MemoryError()) == "MemoryError"
