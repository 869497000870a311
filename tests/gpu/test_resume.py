"""Checks 11 and 12: stopped and resumed, a run ends with the same bits; a loss scale goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kovqa_core.errors import Stopped
from kovqa_core.settings.profile import Profile
from kovqa_core.train.loop import run_training
from kovqa_core.train.strategies import base

from tests.conftest import Small
from tests.gpu.devices import TinyVlm, case_run, on_devices
from tests.tools.training_log import read_log
from tests.train.test_resume import ALONE, checkpoint_bytes, never_stop, stop_after

LONG = ("optim.steps=6", "eval.every_steps=6")
# Same bits need kernels that always sum in one order; a CPU's do.
SAME_KERNELS = ("profile.deterministic=true",) if "deterministic" in Profile.model_fields else ()
CASES = ("beit3:vqa", "beit3:caption", "fusion:grid", "vlm:lora")


@pytest.mark.parametrize(
    ("device", "case", "precision"),
    on_devices([("beit3:vqa", "fp32")], [(case, p) for case in CASES for p in ("fp32", "bf16")]),
)
def test_the_same_bits_after_a_stop(
    small: Small, tiny_vlm: TinyVlm, tmp_path: Path, device: torch.device, case: str, precision: str
) -> None:
    sets = (*LONG, *SAME_KERNELS, f"profile.precision={precision}", "optim.max_grad_norm=1")
    whole = case_run(case, small, tiny_vlm, tmp_path / "whole", *sets)
    run_training(whole, ALONE, device, never_stop)
    parts = case_run(case, small, tiny_vlm, tmp_path / "parts", *sets)
    with pytest.raises(Stopped):
        run_training(parts, ALONE, device, stop_after(3))
    run_training(parts, ALONE, device, never_stop)
    assert checkpoint_bytes(parts) == checkpoint_bytes(whole)
    losses = [[r["loss"] for r in read_log(run.folder) if r["kind"] == "train"] for run in (whole, parts)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("device", on_devices())
def test_a_loss_scale_survives(
    small: Small, tiny_vlm: TinyVlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    """It begins so high that the first steps are skipped, on a GPU by the optimizer itself."""
    monkeypatch.setattr(base, "INIT_LOSS_SCALE", 2.0**24)
    sets = ("optim.steps=12", "eval.every_steps=12", *SAME_KERNELS, "profile.precision=fp16")
    run = case_run("beit3:vqa", small, tiny_vlm, tmp_path / "run", *sets)
    with pytest.raises(Stopped):
        run_training(run, ALONE, device, stop_after(2))
    (state,) = run.folder.glob("step-*/trainer/state.json")
    scale = json.loads(state.read_text())["scale"]
    assert scale["value"] < 2.0**24  # a skipped step has halved it
    run_training(run, ALONE, device, never_stop)
    rows = [row for row in read_log(run.folder) if row["kind"] == "train"]
    skipped = sum(row["grad_norm"] is None for row in rows)
    assert 2 <= skipped < 12
    assert rows[-1]["loss_scale"] == 2.0 ** (24 - skipped)
