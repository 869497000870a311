"""Checks 6 and 7: no step waits for the GPU more than once, and a new text length costs next to nothing."""

from __future__ import annotations

import statistics
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kovqa_core.models.batches import ModelBatch
from kovqa_core.train import loop

from tests.conftest import Small
from tests.gpu.devices import FEW, TinyVlm, case_run, on_devices
from tests.gpu.training import started
from tests.models.test_contract import CASES

STEPS = ("optim.steps=8", "eval.every_steps=99", "profile.micro_batch={default: 2}", "log_every=1")
NEW_LENGTH_SECONDS = 5e-3


def count_waits(device: torch.device, seen: list[warnings.WarningMessage]) -> int:
    """Warnings of torch that a call waited for the GPU."""
    return sum("synchronizing CUDA operation" in str(each.message) for each in seen)


@pytest.mark.parametrize(("device", "case"), on_devices(FEW[:2], CASES))
def test_a_step_waits_once(
    small: Small, tiny_vlm: TinyVlm, tmp_path: Path, device: torch.device, case: str
) -> None:
    """Of two micro-batches: its loss, norm and flags are read together."""
    run = case_run(case, small, tiny_vlm, tmp_path / "run", *STEPS, "optim.global_batch=4")
    waits = []
    with started(run, device) as (state, batches, meter):
        for step in range(5):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                if device.type == "cuda":
                    torch.cuda.set_sync_debug_mode("warn")
                try:
                    loop.train_step(state, batches, step, meter)
                finally:
                    if device.type == "cuda":
                        torch.cuda.set_sync_debug_mode("default")
            waits.append(count_waits(device, seen))
    # The first two make states, plans and caches.
    assert max(waits[2:]) <= 1, waits
    assert state.progress.step == 5


def lengthened(batch: ModelBatch, length: int) -> ModelBatch:
    """A batch of BEiT-3 whose texts are as long as this: padded, or cut."""
    tokens, padding = batch.tensors["tokens"], batch.tensors["padding"]
    more = max(0, length - tokens.shape[1])
    if padding is None:
        padding = torch.zeros_like(tokens, dtype=torch.bool)
    tokens = torch.nn.functional.pad(tokens, (0, more), value=1)[:, :length]
    padding = torch.nn.functional.pad(padding, (0, more), value=True)[:, :length]
    return replace(batch, tensors={**batch.tensors, "tokens": tokens, "padding": padding})


@pytest.mark.parametrize(("device", "compile"), on_devices((False,), (False, True)))
def test_a_new_text_length_costs_little(
    small: Small, tiny_vlm: TinyVlm, tmp_path: Path, device: torch.device, compile: bool
) -> None:
    """The first step of a length beside the second of it; nothing is learned anew of padding."""
    on_cuda = device.type == "cuda"
    sets = (
        (
            "model.size=base",
            "model.custom=null",
            "model.image_size=224",
            "model.patch_size=16",
            "model.max_text=64",
        )
        if on_cuda
        else ()
    )
    precision = ("profile.precision=bf16",) if on_cuda else ()
    run = case_run(
        "beit3:vqa", small, tiny_vlm, tmp_path / "run", *STEPS, *sets, *precision, f"profile.compile={compile}"
    )  # fmt: skip
    with started(run, device) as (state, batches, _):
        batch = next(batches).to(device)
        longest = int(batch.tensors["tokens"].shape[1])
        lengths = [*range(longest, 49, 8)] if on_cuda else [longest, longest + 8]
        seconds: dict[int, list[float]] = {}
        losses = []

        def step(length: int) -> float:
            began = time.perf_counter()
            loss = state.strategy.backward(lengthened(batch, length), 0, last=True)
            state.strategy.optimizer.zero_grad(set_to_none=False)
            losses.append(loss.mean)
            if on_cuda:
                torch.cuda.synchronize()
            return time.perf_counter() - began

        for length in (lengths[0], lengths[1]) * 2:  # kernels are loaded, graphs are made
            step(length)
        for length in lengths[2:] or lengths:
            seconds[length] = [step(length) for _ in range(4)]
    rel = 1e-2 if on_cuda else 1e-5
    assert all(float(loss) == pytest.approx(float(losses[0]), rel=rel) for loss in losses)
    dearer = [first - statistics.median(again) for first, *again in seconds.values()]
    if on_cuda:  # a CPU that others use too tells no milliseconds
        assert statistics.median(dearer) <= NEW_LENGTH_SECONDS, dearer
    assert len(dearer) == len(seconds) > 0
