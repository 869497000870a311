"""The cluster itself: two nodes that know each other's names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from kovqa_core.launch.plan import plan_launch
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import load_recipe
from kovqa_core.settings.run import make_run

from tests.conftest import Small, clean_env, command, training
from tests.tools.mini_slurm import MiniSlurm


def test_two_nodes_run_a_task_each(cluster: MiniSlurm) -> None:
    assert sorted(cluster.out("srun", "-N2", "hostname").split()) == ["n1", "n2"]


def test_an_allocation_of_fewer_tasks_than_the_profile_has_processes(
    cluster: MiniSlurm, small: Small, tmp_path: Path
) -> None:
    """srun inherits the one task of the allocation, and ignores --ntasks-per-node=2."""
    settings = ("optim.steps=2", "profile.launcher=srun", "profile.processes_per_node=2")
    words = command([*training(small, *settings), "-o", tmp_path / "run", "-q"])
    done = cluster.run(
        ["salloc", "-N1", "-n1", "-c2", *words], env=clean_env(SLURM_CONF=cluster.conf), cwd=tmp_path,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "1 process came, the profile wants 2" in done.stderr
    assert not (tmp_path / "run" / "log.jsonl").exists()


# What a worker decides first, without torch: who it is, and which GPU of those that it was given is its own.
TASK = """
import os
from kovqa_core.distributed.rank_info import choose_gpu, rank_from_slurm
rank = rank_from_slurm(os.environ)
seen = os.environ.get("CUDA_VISIBLE_DEVICES", "none").split(",")
print("task", rank.rank, "of", rank.world_size, "sees", len(seen), "takes", seen[choose_gpu(rank, len(seen))])
"""


def tasks_of(
    cluster: MiniSlurm,
    folder: Path,
    before: tuple[str, ...] = (),
    slurm: dict[str, object] | None = None,
    **settings: object,
) -> list[str]:
    """What the tasks print that kovqa's own srun starts, in place of workers; sorted."""
    (folder / "task.py").write_text(TASK)
    python = folder / "python"
    python.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{folder}/task.py'\n")
    python.chmod(0o755)
    profile = Profile.model_validate(
        {
            "name": "x",
            "launcher": "srun",
            "python": str(python),
            "slurm": {"cpus_per_task": 1, **(slurm or {})},
            **settings,
        }
    )
    launch = plan_launch(make_run(load_recipe("kobeit3"), profile, folder, []), sys.executable, cores=4)
    done = cluster.run(
        [*before, *launch.argv],
        env=clean_env(SLURM_CONF=cluster.conf),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return sorted(line for line in done.stdout.splitlines() if line.startswith("task "))


@pytest.mark.parametrize(
    ("before", "slurm", "seen"),
    [
        ((), {}, 2),
        ((), {"options": ["--gpus-per-task=1"]}, 1),
        ((), {"srun_options": ["--gpu-bind=single:1"]}, 1),
        (("salloc", "-N1", "--ntasks-per-node=2", "--gpus-per-task=1"), {}, 1),  # srun inherits it
    ],
)
def test_each_task_takes_a_gpu_of_its_own(
    cluster: MiniSlurm, tmp_path: Path, before: tuple[str, ...], slurm: dict[str, object], seen: int
) -> None:
    said = tasks_of(cluster, tmp_path, before, slurm, gpu="A100", processes_per_node=2)
    assert said == [f"task {rank} of 2 sees {seen} takes {rank}" for rank in range(2)]


def test_srun_takes_the_number_of_tasks_from_elsewhere(cluster: MiniSlurm, tmp_path: Path) -> None:
    """What `require_world_size` and `require_task_per_node` are for: no option of kovqa's prevents it."""
    for before, count in ((("salloc", "-n1", "-c2"), 1), (("env", "SLURM_NTASKS=3"), 3)):
        said = tasks_of(cluster, tmp_path, before, processes_per_node=2)
        assert [line.split()[3] for line in said] == [str(count)] * count


def test_a_nodes_setup_runs_once_on_each_node(cluster: MiniSlurm, tmp_path: Path) -> None:
    said = tmp_path / "said"
    lines = [f"mkdir -p {said}", "sleep 0.5", f"echo here >> {said}/$SLURMD_NODENAME"]
    tasks = tasks_of(
        cluster,
        tmp_path,
        slurm={"node_setup": lines, "srun_options": ["--mpi=none"]},
        nodes=2,
        processes_per_node=2,
    )
    assert len(tasks) == 4
    assert {path.name: path.read_text() for path in said.iterdir()} == {"n1": "here\n", "n2": "here\n"}
