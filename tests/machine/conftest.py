"""A machine with two NVIDIA GPUs, as far as nvidia-smi can show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
