"""GPUs that CUDA would see, and the memory that new processes may take."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core import cgroup
from kovqa_core.machine import hardware

GIB = 2**30


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("visible", "count"), [(None, 2), ("0", 1), ("GPU-8f1, GPU-2ab", 2), ("", 0), ("-1", 0)]
)
def test_cuda_visible_devices_hides_gpus(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.memory_gb for gpu in hardware.visible_gpus()] == [80] * count


def test_an_nvidia_smi_that_fails_shows_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert hardware.visible_gpus() == []
    assert hardware.nvidia_driver_version() is None


def test_a_silent_nvidia_smi_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert hardware.find_gpus().problems == ("nvidia-smi is here, but prints nothing",)


@pytest.mark.parametrize(
    ("limit", "used", "available"),
    [(None, 0, 8 * GIB), ("max", GIB, 8 * GIB), (4 * GIB, GIB, 3 * GIB), (64 * GIB, GIB, 8 * GIB)],
)
def test_a_container_leaves_less_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: int | str | None, used: int, available: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
    monkeypatch.setattr(hardware, "_MEMINFO_FILE", tmp_path / "meminfo")
    monkeypatch.setattr(cgroup, "_ROOT", tmp_path)
    assert hardware.available_memory() == available


def test_no_meminfo_no_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hardware, "_MEMINFO_FILE", tmp_path / "nothing")
    assert hardware.available_memory() is None
