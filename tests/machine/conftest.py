"""Machines with NVIDIA GPUs, as far as nvidia-smi can show them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.machine.nvidia_smi import _ask_nvidia_smi

NVIDIA_SMI = """#!/bin/sh
case "$1" in
  *driver_version*) echo 470.1; echo 470.1 ;;
  *) echo "NVIDIA A100-SXM4-80GB, 81920"; echo "NVIDIA A100-SXM4-80GB, 81920" ;;
esac
"""


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Puts an nvidia-smi in place that prints rows of name and memory, and what `-L` lists."""

    def install(rows: str, listed: str = "", *, code: int = 0, before: str = ":") -> None:
        script = tmp_path / "nvidia-smi"
        (tmp_path / "rows").write_text(rows)
        (tmp_path / "listed").write_text(listed)
        script.write_text(
            f'#!/bin/sh\n{before}\ncase "$*" in *-L*) cat {tmp_path}/listed;; *driver_version*) echo 580.1;; '
            f"*) cat {tmp_path}/rows;; esac\nexit {code}\n"
        )
        script.chmod(0o755)
        _ask_nvidia_smi.cache_clear()  # asked once in a process; here it changes
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)

    return install
