"""As many processes train as the batch was split for; a table is answered by whatever number comes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from kovqa_core.distributed.rank_info import RankInfo, rank_from_slurm, rank_from_torchrun
from kovqa_core.errors import MachineError
from kovqa_core.launch.world_size import require_world_size
from kovqa_core.settings.profile import Profile

from tests.cli.test_predict import lines
from tests.conftest import Kovqa, Small, training

# What srun does inside of `salloc -n1`, whatever number of tasks per node it is asked for.
SRUN = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
export SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1 SLURM_STEP_NUM_TASKS=1
exec "$@"
"""


@pytest.fixture
def with_srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One task, whatever number is asked for."""
    tool = tmp_path / "bin" / "srun"
    tool.parent.mkdir()
    tool.write_text(SRUN)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)


@pytest.mark.parametrize(("came", "wanted"), [(1, 2), (3, 2), (8, 16)])
@pytest.mark.parametrize("launcher", ["torchrun", "srun", "sbatch"])
def test_another_number_of_processes_is_refused(came: int, wanted: int, launcher: str) -> None:
    settings = {"nodes": 2, "processes_per_node": wanted // 2, "rendezvous": "h:1"}
    profile = Profile.model_validate({"name": "x", "launcher": launcher, **settings})
    with pytest.raises(MachineError, match=f"{came} process(es)? came, the profile wants {wanted} ") as error:
        require_world_size(RankInfo(0, 0, came), profile)
    assert (f"--ntasks={wanted}" in error.value.hint) == (launcher != "torchrun")
    require_world_size(RankInfo(wanted - 1, 0, wanted), profile)


def test_the_number_is_the_steps_own() -> None:
    environ = {
        "SLURM_PROCID": "1",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": "1",
        "SLURM_STEP_NUM_TASKS": "2",
    }
    assert rank_from_slurm(environ).world_size == 2
    assert rank_from_slurm({**environ, "SLURM_STEP_NUM_TASKS": ""}).world_size == 1
    assert rank_from_torchrun({**environ, "WORLD_SIZE": "4"}).world_size == 4


@pytest.mark.usefixtures("with_srun")
def test_a_training_of_too_few_tasks_ends_before_the_first_step(
    kovqa: Kovqa, small: Small, tmp_path: Path
) -> None:
    words = training(small, "optim.steps=4", "profile.launcher=srun", "profile.processes_per_node=2")
    done = kovqa(*words, "-o", tmp_path / "run", "-q")
    assert done.returncode == 4, done.stderr
    (line,) = done.stderr.splitlines()
    assert "1 process came, the profile wants 2 (1 × 2: nodes × processes_per_node) [KOVQA-" in line
    assert "--ntasks=2" in line
    assert not (tmp_path / "run" / "log.jsonl").exists()
    assert not list((tmp_path / "run").glob("step-*"))


@pytest.mark.usefixtures("with_srun")
def test_a_table_is_answered_whole_by_too_few_tasks(
    kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text("name: p\nlauncher: srun\nprocesses_per_node: 2\nthreads: 1\n")
    words = ["predict", "--model", trained, "--input", small.index / "test.jsonl", "-o", "out.jsonl"]
    done = kovqa(*words, "-p", "p.yaml")
    assert done.returncode == 0, done.stderr
    expected = (small.index / "test.jsonl").read_text(encoding="utf-8").splitlines()
    assert [row["id"] for row in lines(tmp_path / "out.jsonl")] == [
        json.loads(line)["id"] for line in expected
    ]
