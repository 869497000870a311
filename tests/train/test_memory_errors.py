"""A step that runs out of memory ends with 4, the micro-batch that would fit, and the command."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from kovqa_core.errors import MachineError, SettingsError
from kovqa_core.plan.training import plan_training
from kovqa_core.settings.run import write_run
from kovqa_core.train import loop
from kovqa_core.train.deterministic import deterministic_errors, use_deterministic_kernels
from kovqa_core.train.memory_errors import out_of_memory_error

from tests.conftest import Small
from tests.train.test_resume import ALONE, CPU, make_small_run, never_stop


def raise_at_step(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException) -> None:
    original = loop.accumulate_gradients

    def accumulate(state: object, batches: object, at: int) -> object:
        if at == step:
            raise error
        return original(state, batches, at)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "accumulate_gradients", accumulate)


def test_it_names_what_fits_and_the_command(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_small_run(small, tmp_path / "a run", "profile.micro_batch={default: 8}")
    raise_at_step(
        monkeypatch, 2, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")
    )
    with pytest.raises(MachineError) as caught:
        loop.run_training(run, ALONE, CPU, never_stop)
    assert caught.value.exit_code == 4
    assert caught.value.message.startswith(
        "out of memory after 2 steps: micro-batch 8 on cpu (CUDA out of memory."
    )
    words = shlex.split(caught.value.hint.split(": ")[1])
    assert words == ["kovqa", "train", "--resume", "-o", str(run.folder), "--micro-batch", "4"]
    write_run(run)
    planned = plan_training(
        None, None, sets=[], flags={}, folder=run.folder, resume=True, dry_run=False, micro_batch=words[-1]
    )
    assert planned.run.micro_batch == 4


def test_where_no_smaller_one_exists_it_says_what_else(small: Small, tmp_path: Path) -> None:
    run = make_small_run(small, tmp_path / "run", "profile.micro_batch={default: 1}")
    hint = out_of_memory_error(run, 0, CPU, MemoryError()).hint
    assert "--set profile.activation_checkpointing=true" in hint
    profile = run.profile.model_copy(update={"activation_checkpointing": True})
    hint = out_of_memory_error(run.model_copy(update={"profile": profile}), 0, CPU, MemoryError()).hint
    assert "fsdp2" in hint


def test_other_errors_stay(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raise_at_step(monkeypatch, 0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        loop.run_training(make_small_run(small, tmp_path / "run"), ALONE, CPU, never_stop)


def test_an_operation_without_a_deterministic_kernel_is_named() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        use_deterministic_kernels()
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        with pytest.raises(SettingsError, match=r"no such kernel \(put_\)") as caught, deterministic_errors():
            torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
        assert "profile.deterministic=false" in caught.value.hint
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
