"""Check 15: one process over NCCL: every strategy trains as ddp does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from kovqa_core.train.loop import run_training

from tests.conftest import Small
from tests.gpu.devices import TinyVlm, case_run, on_devices
from tests.tools.training_log import read_log
from tests.train.test_resume import ALONE, never_stop

SETTINGS = (
    "optim.steps=4", "eval.every_steps=4", "optim.max_grad_norm=0.5", "optim.ema_decay=0.5",
    "profile.micro_batch={default: 4}",
)  # fmt: skip


@pytest.mark.parametrize(("device", "strategy"), on_devices(("fsdp2",), ("fsdp2", "zero2", "zero1", "zero3")))
def test_one_process_of_every_strategy(
    small: Small, tiny_vlm: TinyVlm, tmp_path: Path, device: torch.device, strategy: str
) -> None:
    curves = []
    for name in ("ddp", strategy):
        sets = (*SETTINGS, f"profile.strategy={name}")
        run = case_run("beit3:vqa", small, tiny_vlm, tmp_path / name, *sets)
        try:
            run_training(run, ALONE, device, never_stop)
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
        rows = [row for row in read_log(run.folder) if row["kind"] == "train"]
        curves.append([row[key] for row in rows for key in ("loss", "grad_norm")])
    assert len(curves[0]) == 8
    assert curves[1] == pytest.approx(curves[0], rel=1e-5 if device.type == "cpu" else 1e-3)
