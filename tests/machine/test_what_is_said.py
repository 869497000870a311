"""A GPU that cannot be used is named before a run is planned on the CPU, and no command ends in a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.answer import local
from kovqa_core.errors import MachineError
from kovqa_core.launch.machine_check import check_machine, local_profiles
from kovqa_core.machine.detect_profile import detect_profile_text
from kovqa_core.machine.versions import machine_facts
from kovqa_core.plan.micro_batch import device_memory
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import load_profile

from tests.conftest import Kovqa, Small

Install = Callable[..., None]
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"


def test_a_plan_says_why_it_is_on_the_cpu(kovqa: Kovqa, small: Small, nvidia_smi: Install) -> None:
    nvidia_smi(MISMATCH + "\n", code=18)
    words = ["train", "-r", "tiny", "--data", small.index, "--tokenizer", small.tokenizer, "-n"]
    done = kovqa(*words, "--json", PATH=os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    says = f"nvidia-smi is here, but fails with 18: {MISMATCH}"
    assert done.stderr.splitlines()[0] == f"warning: {says}"
    plan = json.loads(done.stdout)
    assert plan["warnings"] == [says]
    assert plan["run"]["profile"]["name"] == "cpu"


def test_too_few_gpus_with_the_reason(nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi("NVIDIA A100-SXM4-80GB, 81920\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(
        MachineError, match=r"shows 0 .*CUDA_VISIBLE_DEVICES=7: there is no 7 among the 1 GPUs"
    ):
        check_machine(load_profile("a100x1"))


@pytest.mark.parametrize("row", ["NVIDIA GB10, [N/A]", "NVIDIA A100-SXM4-80GB, [GPU is lost]", "rubbish"])
def test_nothing_fails_where_memory_is_not_known(nvidia_smi: Install, row: str) -> None:
    nvidia_smi(row + "\n")
    assert machine_facts().driver == "580.1"
    text = detect_profile_text("x", local_profiles())
    assert ("(memory not known)" in text) == ("GB10" in row)
    assert "gpu_memory_gb" not in text
    assert device_memory(Profile(name="x", gpu="GB10")) is None


def test_an_answer_on_the_cpu_beside_a_gpu_is_said(nvidia_smi: Install, tmp_path: Path) -> None:
    nvidia_smi("NVIDIA A100-SXM4-80GB, 81920\n")
    assert "torch 2." in (local.cpu_warning() or "")
    assert "though NVIDIA A100-SXM4-80GB is here" in (local.cpu_warning() or "")
    nvidia_smi(MISMATCH + "\n", code=18)
    assert MISMATCH in (local.cpu_warning() or "")
