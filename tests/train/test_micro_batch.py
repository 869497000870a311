"""--micro-batch: a number, or as many examples as fit; the experiment stays the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from kovqa_core.settings.run import Run, read_run, write_run

from tests.conftest import Kovqa, Small, clean_env, sets, training
from tests.tools.training_log import read_log

# 44 MB of activations an example beside 6 MB of weights: the difference between two micro-batches is plain to see.
WIDE = (
    "model.custom=[128, 4, 8, 512]", "model.image_size=192", "model.patch_size=8", "optim.global_batch=16", "optim.steps=1",
)  # fmt: skip

# A worker's process until its run begins, with 600 MB of data more and no more. Without oneDNN, which does not
# recover once it was refused memory.
WORKER = """
import resource, sys
from pathlib import Path
import torch
from kovqa_core.settings.run import read_run
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.train.loop import prepare_training
from kovqa_core.train.memory_probe import probe_micro_batch

torch.backends.mkldnn.enabled = False
run, rank = read_run(Path(sys.argv[1])), RankInfo(0, 0, 1)
state = prepare_training(run, rank, torch.device("cpu"), lambda: False)
model = state.strategy.model
before = {name: value.clone() for name, value in model.state_dict().items()}
data = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
most = int(data.split()[1]) * 1024 + 600_000_000
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
probe_micro_batch(state)
assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
assert all(p.grad is None for p in model.parameters())
assert not state.strategy.optimizer.state
"""


def test_a_step_that_does_not_fit_is_halved_until_it_does(small: Small, tmp_path: Path, kovqa: Kovqa) -> None:
    words = training(small, *WIDE)
    done = kovqa(*words, "-o", "r", "--micro-batch", "auto", "-n", "--json")
    run = Run.model_validate(json.loads(done.stdout)["run"])
    run.folder.mkdir()
    file = write_run(run)
    assert (read_run(file).micro_batch, read_run(file).probe) == (16, True)
    done = subprocess.run(
        [sys.executable, "-P", "-c", WORKER, str(file)], env=clean_env(), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = read_run(file)
    assert run.micro_batch in (2, 4, 8)
    assert run.micro_batch * run.accumulate == 16
    assert not run.probe, "a micro-batch that was found is not sought again"
    (record,) = [row for row in read_log(tmp_path / "r") if row["kind"] == "fit"]
    assert (record["micro_batch"], record["tried_first"]) == (run.micro_batch, 16)


def test_a_tried_step_leaves_no_trace(small: Small, tmp_path: Path, kovqa: Kovqa) -> None:
    """Two processes: what all of them can hold is what each takes, and the run is as if it had been typed."""
    words = training(small, "optim.steps=3", "eval.every_steps=9", "profile.processes_per_node=2")
    for name, number in (("auto", "auto"), ("typed", "4")):
        done = kovqa(*words, "-o", name, "--micro-batch", number)
        assert done.returncode == 0, done.stderr
        assert ("micro-batch 4 × 1 fits into memory" in done.stderr) == (name == "auto")
    files = [tmp_path / name / "step-000003" / "model.safetensors" for name in ("auto", "typed")]
    assert files[0].read_bytes() == files[1].read_bytes()


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
    gpu = sets(
        "profile.gpu=RTX 3090", "profile.gpu_memory_gb=24", "optim.global_batch=24", "model.image_size=480"
    )
    sizes = sets("model.size=large", "model.custom=null", "model.patch_size=16")
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
