"""Check 17: loader processes keep the GPU busy."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from kovqa_core.train import loop

from tests.conftest import Small
from tests.gpu.devices import TinyVlm, case_run, on_devices
from tests.gpu.training import started

MOST_IDLE = 0.10


def seconds_of_steps(state: object, batches: object, meter: object, first: int, steps: int) -> float:
    """Wall time of some steps, the device's work included."""
    began = time.perf_counter()
    for step in range(first, first + steps):
        loop.train_step(state, batches, step, meter)  # type: ignore[arg-type]
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


@pytest.mark.parametrize("device", on_devices())
def test_the_device_hardly_waits_for_batches(
    small: Small, tiny_vlm: TinyVlm, tmp_path: Path, device: torch.device
) -> None:
    """Steps fed by loaders beside the same steps over one batch that is there already."""
    on_cuda = device.type == "cuda"
    workers = min(12, (os.cpu_count() or 2) - 1) if on_cuda else 0
    steps = 12 if on_cuda else 2
    large = ("model.size=large", "model.custom=null", "model.image_size=224", "model.patch_size=16")
    sets = (
        "optim.steps=99", "eval.every_steps=999", "log_every=99", "optim.global_batch=24",
        "profile.micro_batch={default: 24}", f"profile.loader_workers={workers}", "data.augment=randaug",
    )  # fmt: skip
    precision = ("profile.precision=bf16", *large) if on_cuda else ()
    run = case_run("beit3:vqa", small, tiny_vlm, tmp_path / "run", *sets, *precision)
    with started(run, device) as (state, batches, meter):
        first = next(batches)
        held = iter(lambda: first, None)
        seconds_of_steps(state, held, meter, 0, 4)  # kernels are loaded, loaders have filled their queues
        alone = seconds_of_steps(state, held, meter, 4, steps)
        fed = seconds_of_steps(state, batches, meter, 4 + steps, steps)
        assert state.progress.step == 4 + 2 * steps
    idle = max(0.0, 1 - alone / fed)
    print(
        f"idle share {idle:.1%}: {fed / steps * 1e3:.1f} ms a step, {alone / steps * 1e3:.1f} ms without loaders"
    )
    assert idle < (MOST_IDLE if on_cuda else 1.0)
