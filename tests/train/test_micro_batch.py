"""--micro-batch: a number, or as many examples as fit; the experiment stays the same."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path

import pytest
from kovqa_core.settings.run import read_run
from kovqa_core.train.log import read_log

from tests.conftest import Kovqa, Small, clean_env, command, sets, training

# 44 MB of activations an example beside 6 MB of weights: the difference between two micro-batches is plain to see.
WIDE = (
    "model.custom=[128, 4, 8, 512]", "model.image=192", "model.patch=8", "optim.steps=1", "optim.warmup_steps=0",
    "eval.every_steps=9",
)  # fmt: skip
MEMORY = 950_000_000  # bytes of data a process may have: torch takes a third; 16 examples do not fit, 8 do


def limited(words: list[object], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command all of whose processes may have so much memory and no more."""
    return subprocess.run(
        command(words), cwd=folder, env=clean_env(), capture_output=True, text=True, timeout=300, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY)),
    )  # fmt: skip


@pytest.mark.parametrize("processes", [1, 2])
def test_auto_finds_a_step_that_fits_and_trains_the_same(
    small: Small, tmp_path: Path, kovqa: Kovqa, processes: int
) -> None:
    batch = 16 * processes
    words = training(small, *WIDE, f"optim.global_batch={batch}", f"profile.processes_per_node={processes}")
    found = limited([*words, "-o", "auto", "--micro-batch", "auto"], tmp_path)
    assert found.returncode == 0, found.stderr
    run = read_run(tmp_path / "auto" / "run.yaml")
    assert run.micro_batch < 16
    assert run.micro_batch * run.accumulate * processes == batch
    assert not run.probe
    (told,) = [row for row in read_log(tmp_path / "auto") if row["kind"] == "fit"]
    assert told["micro_batch"] == run.micro_batch
    assert f"micro-batch {run.micro_batch} × {run.accumulate} fits" in found.stderr
    same = kovqa(*words, "-o", "given", "--micro-batch", run.micro_batch)
    assert same.returncode == 0, same.stderr
    weights = [
        (tmp_path / name / "step-000001" / "model.safetensors").read_bytes() for name in ("auto", "given")
    ]
    assert weights[0] == weights[1]


def test_a_number_is_kept_and_divides_the_batch(small: Small, kovqa: Kovqa) -> None:
    planned = kovqa(*training(small), "--micro-batch", "3", "-n", "--json", "-o", "r")
    run = json.loads(planned.stdout)["run"]
    assert (run["micro_batch"], run["accumulate"]) == (2, 4)


@pytest.mark.parametrize("number", ["0", "viel", "1.5"])
def test_neither_number_nor_auto(small: Small, kovqa: Kovqa, number: str) -> None:
    done = kovqa(*training(small), "--micro-batch", number, "-n")
    assert done.returncode == 2
    assert number in done.stderr


def test_the_plan_warns_of_memory_and_names_what_fits(small: Small, kovqa: Kovqa) -> None:
    gpu = sets("profile.gpu=RTX 3090", "profile.gpu_memory_gb=24", "optim.global_batch=24", "model.image=480")
    sizes = sets("model.size=large", "model.custom=null", "model.patch=16")
    done = kovqa(*training(small), *gpu, *sizes, "--micro-batch", "24", "-n", "--json", "-o", "r")
    assert done.returncode == 0, done.stderr
    memory = json.loads(done.stdout)["memory"]
    assert memory["bytes"] > 24 * 2**30
    best = memory["largest_micro_batch"]
    assert 1 <= best < 24
    assert f"--micro-batch {best} needs about" in done.stderr
    auto = kovqa(*training(small), *gpu, *sizes, "--micro-batch", "auto", "-n", "--json", "-o", "a")
    assert json.loads(auto.stdout)["run"]["micro_batch"] == best
    assert "warning: micro-batch" not in auto.stderr
