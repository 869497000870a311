"""The cluster itself: two nodes that know each other's names."""

from __future__ import annotations

from pathlib import Path

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
