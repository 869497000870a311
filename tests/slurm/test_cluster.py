"""The cluster itself: two nodes that know each other's names."""

from __future__ import annotations

from tests.tools.mini_slurm import MiniSlurm


def test_two_nodes_run_a_task_each(cluster: MiniSlurm) -> None:
    assert sorted(cluster.out("srun", "-N2", "hostname").split()) == ["n1", "n2"]
