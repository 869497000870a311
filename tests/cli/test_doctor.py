"""kovqa doctor, and what works where torch is broken."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

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
    done = kovqa("doctor", "--deep", "--json", **env)
    assert done.returncode == 4, done.stderr
    about = json.loads(done.stdout)
    findings = {finding["name"]: finding for finding in about["findings"]}
    assert about["state"] == "missing"
    assert findings["torch"]["state"] == "missing"
    assert "libcudart.so.12: 없음" in findings["torch"]["what"]
    assert "pip install" in findings["torch"]["do"]
    assert findings["timm"]["do"] == "mend torch first"
    assert findings["numpy"]["state"] == findings["sentencepiece"]["state"] == "ok"
    assert "fits: kovqa train -p " in findings["profile"]["what"]
    assert {"Dacon", "Hugging Face"} <= set(findings["keys"]["what"].split(", "))
    assert "secret" not in done.stdout + done.stderr
    assert "missing here: torch" in done.stderr


def test_a_look_at_the_machine_imports_no_library(kovqa: Kovqa, broken: dict[str, str]) -> None:
    """Neither here nor in a process of its own, where the broken torch would be noticed."""
    heavy = {
        "torch",
        "numpy",
        "PIL",
        "transformers",
        "timm",
        "peft",
        "deepspeed",
        "sentencepiece",
        "safetensors",
    }
    assert not loaded("doctor", "-q") & heavy
    done = kovqa("doctor", "--json", **broken)
    assert done.returncode == 0, done.stderr
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["torch"]["state"] == findings["timm"]["state"] == "ok"
    assert findings["torch"]["what"].startswith("2.")


def test_what_needs_no_torch_works_without(
    kovqa: Kovqa, broken: dict[str, str], small: Small, trained: Path, tmp_path: Path
) -> None:
    assert kovqa("--help", **broken).returncode == 0
    files = ["--data", small.index, "--tokenizer", small.tokenizer]
    planned = kovqa("train", "-r", "tiny", "-p", "cpu", *files, "-n", "-o", "runs/r", **broken)
    assert planned.returncode == 0, planned.stderr
    shutil.copytree(trained, tmp_path / "runs" / "r")
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
