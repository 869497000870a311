"""What `kovqa doctor` finds besides libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.launch.machine_check import local_profiles
from kovqa_core.machine import doctor


@pytest.mark.usefixtures("two_gpus")
def test_gpus_and_the_profile_that_fits_them() -> None:
    findings = {finding.name: finding.what for finding in doctor.hardware_findings(local_profiles())}
    assert findings["GPUs"] == "2 × NVIDIA A100-SXM4-80GB (80 GB), driver 470.1"
    assert findings["profile"].startswith("nvidia fits: kovqa train -p nvidia; ")  # and what nobody says


def test_gpus_that_cannot_be_used_are_a_warning(nvidia_smi: Callable[..., None]) -> None:
    nvidia_smi("Failed to initialize NVML: Driver/library version mismatch\n", code=18)
    finding = next(doctor.hardware_findings(local_profiles()))
    assert finding.state == "warning"
    assert "models run on the CPU; nvidia-smi is here, but fails with 18: Failed to init" in finding.what
    nvidia_smi("NVIDIA GB10, [N/A]\n")
    finding = next(doctor.hardware_findings(local_profiles()))
    assert finding.what.startswith("1 × NVIDIA GB10 (memory not known), driver 580.1; ")


@pytest.mark.parametrize(
    ("encoding", "state"), [("utf-8", "ok"), ("cp949", "ok"), ("ascii", "warning"), ("?", "warning")]
)
def test_a_terminal_without_hangul(encoding: str, state: str) -> None:
    assert doctor.terminal_finding(encoding).state == state


def test_a_key_that_others_can_read_is_named_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path))
    (tmp_path / "aihub.key").write_text("hush")
    (tmp_path / "aihub.key").chmod(0o644)
    finding = doctor.api_key_finding()
    assert finding.state == "warning"
    assert finding.do == f"chmod 600 {tmp_path / 'aihub.key'}"
    assert "hush" not in finding.what + finding.do
