"""Checks 8, 9 and 10: memory is as counted, a micro-batch is found that fits, and too much of it ends well."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from kovqa_core.index.reader import open_index
from kovqa_core.models.batches import ModelBatch, iterate_batches
from kovqa_core.plan.training import plan_training
from kovqa_core.train import loop, memory_probe
from kovqa_core.train.loader import micro_batch_keys
from kovqa_core.train.meter import TrainMeter
from kovqa_core.train.state import TrainState

from tests.conftest import Small, clean_env, command, sets
from tests.gpu.devices import GPU_MARKS, TinyVlm, case_run, on_devices
from tests.gpu.training import ALONE, started
from tests.models.vlm.tiny_vlm import write_tiny_vlm

ALLOCATED, RESERVED = 0.10, 0.15  # how far the count may be from what torch has allocated and reserved
ROWS = 24  # of the small index: one micro-batch
NEW_WEIGHTS = ("model.weights=null", "model.reinit=[]")


@dataclass(frozen=True)
class Counted:
    """A model whose step is counted and measured: recipe and settings."""

    recipe: str
    settings: Sequence[str]


MODELS = {
    "BEiT-3 large 224": Counted("kobeit3", (*NEW_WEIGHTS, "model.text_rows=original")),
    "BEiT-3 base 480": Counted("vqav2", NEW_WEIGHTS),
    "BEiT-3 captions base 480": Counted("coco-caption", ("model.weights=null",)),
    "nia": Counted("nia", ("model.random_init=true", "optim.warmup_epochs=0")),
    "llava lora": Counted("tiny-vlm", ("model.train=lora", "model.dtype=bf16", "model.max_pixels=2304")),
}


@pytest.mark.parametrize(("device", "name"), on_devices(MODELS, MODELS))
def test_memory_is_as_counted(small: Small, tmp_path: Path, device: torch.device, name: str) -> None:
    """The plan's number beside torch's own of the second step: the first one makes the optimizer's moments."""
    model = MODELS[name]
    flags = {"data.index": str(small.captions if "caption" in name else small.index)}
    options = [
        *model.settings, f"optim.global_batch={ROWS}", "optim.epochs=null", "optim.steps=4", "eval.every_steps=99",
        "profile.gpu=NVIDIA", "profile.gpu_memory_gb=80", "profile.precision=bf16", "profile.compile=false",
    ]  # fmt: skip
    if name == "llava lora":
        texts = tuple(f"{e.question} {' '.join(e.answers)}" for e in open_index(small.index).split("train"))
        options.append(f"model.base={write_tiny_vlm('llava', tmp_path / 'base', texts, wide=True)}")
    else:
        flags["model.tokenizer"] = str(small.tokenizer)
    planned = plan_training(
        model.recipe, "cpu", sets=options, flags=flags, folder=tmp_path / "run", resume=False, dry_run=True,
        micro_batch=str(ROWS),
    )  # fmt: skip
    needs = planned.memory_plan.needs
    assert needs is not None, planned.memory_plan.unknown
    assert needs.peak > 0
    if device.type == "cpu":
        return  # a CPU's own count is held to its measure by tests/train/test_memory.py
    allocated, reserved = measured_peak(planned.run, device)
    print(
        f"{name}: counted {needs.peak / 2**30:.2f}, allocated {allocated / 2**30:.2f}, reserved {reserved / 2**30:.2f} GiB"
    )
    assert needs.peak == pytest.approx(allocated, rel=ALLOCATED)
    assert reserved <= (1 + RESERVED) * needs.peak


def measured_peak(run: Any, device: torch.device) -> tuple[int, int]:
    """Bytes that torch allocated and reserved at the fullest moment of a run's second step."""
    run.folder.mkdir()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    with started(run, device) as (state, batches, meter):
        loop.train_step(state, batches, 0, meter)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        loop.train_step(state, batches, 1, meter)
        torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    return peak[0] - before[0], peak[1] - before[1]


@pytest.mark.parametrize("device", on_devices())
def test_the_largest_micro_batch_that_fits_is_found(
    small: Small, tiny_vlm: TinyVlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    """Against a real limit on a GPU, against a pretended one on a CPU; then a real step goes through."""
    on_cuda = device.type == "cuda"
    large = ("model.size=base", "model.custom=null", "model.image_size=480", "model.patch_size=16")
    options = (
        "optim.global_batch=16",
        "profile.micro_batch={default: 16}",
        "optim.steps=2",
        "eval.every_steps=99",
    )
    run = case_run("beit3:vqa", small, tiny_vlm, tmp_path / "run", *options, *(large if on_cuda else ()))
    run = run.model_copy(update={"probe": True})
    with started(run, device) as (state, _, _):
        if on_cuda:
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(device).total_memory
            # Room for AdamW's moments and a few examples: fp32, 901 tokens.
            states = 3 * sum(4 * p.numel() for p in state.strategy.model.parameters())
            room = torch.cuda.memory_reserved(device) + states + 6 * 2**30
            torch.cuda.set_per_process_memory_fraction(min(1.0, room / total), device)
        else:
            limit_examples(state.strategy.model, monkeypatch, 4)
        try:
            found = memory_probe.probe_micro_batch(state)
            assert found.micro_batch * found.accumulate == 16
            assert found.micro_batch < 16
            if not on_cuda:
                assert found.micro_batch == 4
            assert not found.probe
            state.run = state.strategy.run = found
            batches = first_batches(state)
            loop.train_step(state, batches, 0, TrainMeter(state, began=time.monotonic(), first_step=0))
        finally:
            if on_cuda:
                torch.cuda.set_per_process_memory_fraction(1.0, device)


def first_batches(state: TrainState) -> Iterator[ModelBatch]:
    """Micro-batches of a run whose micro-batch was found only now."""
    keys = micro_batch_keys(state.run, len(state.examples), ALONE, 0, state.steps.total)
    return iterate_batches(keys, state.examples, state.index.images, state.processor, train=True)


def limit_examples(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A model that runs out of memory as CUDA's does, beyond so many examples."""
    forward = model.forward

    def limited(batch: ModelBatch, step: int) -> object:
        if len(batch.ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")
        return forward(batch, step)

    monkeypatch.setattr(model, "forward", limited)


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=GPU_MARKS)])
def test_out_of_memory_ends_with_a_number_that_fits(small: Small, tmp_path: Path, device: str) -> None:
    """`kovqa train` beside somebody who holds nearly all of the GPU: exit code 4, and what to type."""
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(0, free - 6 * 2**30), dtype=torch.uint8, device=device)
    options = sets(
        "model.size=base", "model.image_size=480", "model.patch_size=16", "optim.global_batch=24", "optim.steps=2",
        "profile.gpu=NVIDIA", "profile.micro_batch={default: 24}",
    )  # fmt: skip
    files = ["--data", small.index, "--tokenizer", small.tokenizer, "-o", tmp_path / "run"]
    done = subprocess.run(
        command(["train", "-r", "tiny", "-p", "cpu", *files, *options]), env=clean_env(), capture_output=True,
        text=True, timeout=150, check=False,
    )  # fmt: skip
    del held
    torch.cuda.empty_cache()
    assert done.returncode == 4, done.stderr
    assert re.search(r"--micro-batch (auto|\d+)", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
