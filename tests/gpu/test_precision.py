"""A GPU answers a table in 16 bits by itself, with as many rows at once as fit, and in fp32 where it is asked to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kovqa_core.answer import local
from kovqa_core.answer.job import AnswerJob, AnswerOptions, run_answer_job

from tests.conftest import Small
from tests.gpu.devices import on_devices


@pytest.mark.parametrize("device", on_devices())
def test_a_table_is_answered_in_what_the_device_is_fast_in(
    small: Small, trained: Path, tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_local_device", lambda: device)
    job = AnswerJob(small.index / "test.jsonl", tmp_path / "auto.jsonl", AnswerOptions(trained))
    table = run_answer_job(job, local.local_backend(job.options))
    assert (table.precision != "fp32") == (device.type == "cuda")
    exact = replace(
        job, output=tmp_path / "exact.jsonl", options=replace(job.options, precision="fp32"), batch=5
    )
    assert run_answer_job(exact, local.local_backend(exact.options)).precision == "fp32"
