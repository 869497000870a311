"""fp16: a loss scale that grows and shrinks, steps that are skipped, and exact resume through both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kovqa_core.errors import Stopped, WorkerError
from kovqa_core.train import optim
from kovqa_core.train.loop import run_training
from kovqa_core.train.strategies import base
from kovqa_core.train.strategies.base import next_loss_scale

from tests.conftest import Small
from tests.tools.training_log import read_log
from tests.train.test_resume import ALONE, CPU, checkpoint_bytes, make_small_run, never_stop, stop_after


def test_the_scale_follows_the_gradients() -> None:
    """The rule and numbers of torch.amp.GradScaler."""
    theirs = torch.amp.GradScaler("cpu")
    scale, good = torch.tensor(2.0**16), torch.tensor(0.0)
    parameter = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    for number in range(4100):
        finite = number not in (3, 4, 2500)
        theirs.scale(parameter * (1.0 if finite else torch.inf)).backward()
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        scale, good = next_loss_scale(scale, good, torch.tensor(float(not finite)))
        assert scale.item() == theirs.get_scale(), number


def test_skipped_steps_count_as_steps_and_resume_exactly(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale begins so high that the first gradients are infinite."""
    monkeypatch.setattr(base, "INIT_LOSS_SCALE", 2.0**21)
    sets = (
        "profile.precision=fp16",
        "optim.steps=12",
        "eval.every_steps=12",
        "optim.ema_decay=0.5",
        "optim.max_grad_norm=1",
    )
    uninterrupted = make_small_run(small, tmp_path / "whole", *sets)
    run_training(uninterrupted, ALONE, CPU, never_stop)
    rows = [row for row in read_log(uninterrupted.folder) if row["kind"] == "train"]
    skipped = [row["step"] for row in rows if row["grad_norm"] is None]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert skipped[:4] == [1, 2, 3, 4]
    assert len(skipped) < 8
    assert rows[-1]["loss_scale"] == 2.0 ** (21 - len(skipped))

    interrupted = make_small_run(small, tmp_path / "parts", *sets)
    for calls in (1, 4):  # before anything was learned, and right after
        with pytest.raises(Stopped):
            run_training(interrupted, ALONE, CPU, stop_after(calls))
    state = json.loads((interrupted.folder / "step-000005/trainer/state.json").read_text())
    assert state["scale"] == {"dynamic": True, "value": 2.0**17, "good": 1}
    run_training(interrupted, ALONE, CPU, never_stop)
    assert checkpoint_bytes(uninterrupted) == checkpoint_bytes(interrupted)


def test_half_precision_goes_nearly_the_same_way(small: Small, tmp_path: Path) -> None:
    curves = []
    for precision in ("fp32", "fp16"):
        run = make_small_run(small, tmp_path / precision, f"profile.precision={precision}")
        run_training(run, ALONE, CPU, never_stop)
        curves.append([row["loss"] for row in read_log(run.folder) if row["kind"] == "train"])
    assert curves[0] != curves[1]
    assert curves[0] == pytest.approx(curves[1], rel=0.02)


def test_a_gradient_that_is_never_finite_ends_the_run(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "INIT_LOSS_SCALE", 4.0)
    monkeypatch.setattr(optim, "clip_grad_norm", lambda *_: torch.tensor(torch.nan))
    run = make_small_run(small, tmp_path / "run", "profile.precision=fp16")
    with pytest.raises(WorkerError, match="the gradient is not finite at step 3"):
        run_training(run, ALONE, CPU, never_stop)
