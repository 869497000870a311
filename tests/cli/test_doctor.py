"""kovqa doctor, and what works where torch is broken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from kovqa_core.launch.machine_check import local_profiles
from kovqa_core.machine import doctor

from tests.conftest import Kovqa, Small
from tests.test_startup import loaded


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, str]:
    """An environment whose torch fails when it is imported."""
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text("raise OSError('libcudart.so.12: 없음')")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "broken"), os.environ.get("PYTHONPATH", "")])}


def test_a_broken_torch_is_found_out(kovqa: Kovqa, broken: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dacon.key").write_text("secret-of-mine")
    (tmp_path / "home" / "dacon.key").chmod(0o600)
    env = {**broken, "KOVQA_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_secret"}
    done = kovqa("doctor", "--json", **env)
    assert done.returncode == 4, done.stderr
    about = json.loads(done.stdout)
    found = {each["name"]: each for each in about["findings"]}
    assert about["state"] == "missing"
    assert found["torch"]["state"] == "missing"
    assert "libcudart.so.12: 없음" in found["torch"]["what"]
    assert "pip install" in found["torch"]["do"]
    assert found["timm"]["do"] == "see to torch first"
    assert found["numpy"]["state"] == found["sentencepiece"]["state"] == "ok"
    assert "fits: kovqa train -p " in found["profile"]["what"]
    assert {"Dacon", "Hugging Face"} <= set(found["keys"]["what"].split(", "))
    assert "secret" not in done.stdout + done.stderr
    assert "missing here: torch" in done.stderr


def test_what_needs_no_torch_works_without(
    kovqa: Kovqa, broken: dict[str, str], small: Small, tmp_path: Path
) -> None:
    assert kovqa("--help", **broken).returncode == 0
    files = ["--data", small.index, "--tokenizer", small.tokenizer]
    planned = kovqa("train", "-r", "tiny", "-p", "cpu", *files, "-n", "-o", "runs/r", **broken)
    assert planned.returncode == 0, planned.stderr
    for words in (["runs"], ["runs", "show", "r"], ["runs", "rerun", "r", "-n"], ["recipes"], ["profiles"]):
        done = kovqa(*words, **broken)
        assert done.returncode == 0, done.stderr
    (tmp_path / "p.jsonl").write_text('{"id": "TEST_00000", "answer": "예"}\n', "utf-8")
    (tmp_path / "s.csv").write_text("ID,answer\nTEST_00000,0\n")
    done = kovqa("submit", "dacon", "--predictions", "p.jsonl", "--sample", "s.csv", "-o", "o.csv", **broken)
    assert done.returncode == 0, done.stderr


def test_the_front_of_runs_and_doctor_is_light() -> None:
    for words in (["runs", "--help"], ["doctor", "--help"], ["runs", "rerun", "--help"]):
        assert not loaded(*words) & {"torch", "numpy", "yaml", "rich", "httpx2"}
    assert not loaded("runs") & {"torch", "numpy", "transformers", "httpx2"}


def test_a_working_torch_is_ok() -> None:
    found = doctor.torch_finding(doctor.try_import(doctor.TORCH_FACTS_SCRIPT), "2.x")
    assert found.state == "ok" if not doctor.machine.gpus() else "warning"
    assert found.what.startswith("2.x, sees")


NVIDIA_SMI = """#!/bin/sh
case "$1" in
  *driver_version*) echo 470.1; echo 470.1 ;;
  *) echo "NVIDIA A100-SXM4-80GB, 81920"; echo "NVIDIA A100-SXM4-80GB, 81920" ;;
esac
"""


@pytest.mark.parametrize(
    ("built_for", "gpus", "state", "said"),
    [
        (None, 0, "warning", "built for CPUs alone, but this machine has 2 × NVIDIA A100"),
        ("12.8", 0, "warning", "built for CUDA 12.8, sees 0 of 2 GPUs; the driver is 470.1"),
        ("12.8", 2, "ok", "sees 2 GPUs"),
    ],
)
def test_wheel_against_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, built_for: str | None, gpus: int, state: str, said: str
) -> None:
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    facts = {"built_for": built_for, "gpus": gpus, "mps": False}
    found = doctor.torch_finding(doctor.ImportAttempt(json.dumps(facts), ""), "2.9")
    assert found.state == state
    assert said in found.what
    about = {each.name: each.what for each in doctor.hardware_findings(local_profiles())}
    assert about["GPUs"] == "2 × NVIDIA A100-SXM4-80GB 80 GB, driver 470.1"
    assert about["profile"].startswith("a100x")


def test_an_import_that_hangs_or_crashes_is_only_a_finding() -> None:
    assert "not imported within 0.3 s" in doctor.try_import("import time; time.sleep(60)", 0.3).error
    assert "signal 6" in doctor.try_import("import os; os.abort()").error
    assert doctor.try_import("import nonesuch").error == "ModuleNotFoundError: No module named 'nonesuch'"
    lost = doctor.CheckedPackage("nonesuch", "nonesuch", "nothing", needed=False)
    tried, known = doctor.try_import("import nonesuch"), {"nonesuch": "not installed"}
    assert doctor.package_finding(lost, tried, known).state == "none"


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
    found = doctor.api_key_finding()
    assert found.state == "warning"
    assert found.do == f"chmod 600 {tmp_path / 'aihub.key'}"
    assert "hush" not in found.what + found.do
