"""A run on a real SLURM of two nodes ends by itself, whatever happens to it, as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.runs import RESULT

from tests.conftest import Small, clean_env, command, left_out
from tests.disturbed import STEPS, same_end, step, until, words
from tests.tools.mini_slurm import MiniSlurm

pytestmark = pytest.mark.xdist_group("slurm")  # one cluster, one undisturbed run

PROFILE = """
launcher: sbatch
nodes: 2
processes_per_node: 1
precision: fp32
hang_minutes: 1
slurm: {partition: main, time: "10:00", cpus_per_task: 1}
"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("두 노드") / "two-nodes.yaml"
    path.write_text(PROFILE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def nodes(cluster: MiniSlurm) -> MiniSlurm:
    if cluster.net is None:
        left_out("nodes that can be killed need root and namespaces: run these tests as root")
    return cluster


def submit(nodes: MiniSlurm, small: Small, profile: Path, folder: Path, *assignments: str) -> str:
    """`kovqa train -p …`: the job's number."""
    done = nodes.run(
        command([*words(small, profile, folder, *assignments), "-q"]),
        env=clean_env(SLURM_CONF=nodes.conf), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def finished(nodes: MiniSlurm, job: str, folder: Path) -> None:
    """Wait for the run's own end; what it said if it comes to another."""

    def ended() -> bool:
        return nodes.out("squeue", "-h", "-t", "all", "-j", job, "-o", "%T") in (
            "COMPLETED",
            "FAILED",
            "CANCELLED",
        )

    until(ended, "the job's end", 240)
    said = "\n".join(f"{p}:\n{p.read_text()[-2000:]}" for p in (folder / "logs").iterdir())
    assert (folder / RESULT).exists(), said


@pytest.fixture(scope="module")
def undisturbed(
    nodes: MiniSlurm, small: Small, profile: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    finished(nodes, submit(nodes, small, profile, folder), folder)
    return folder


def test_a_run_trains_across_two_nodes(undisturbed: Path) -> None:
    assert step(undisturbed) == STEPS
    assert (undisturbed / "logs" / "rank-1.log").exists()


def test_a_job_queued_again_and_then_a_node_that_dies(
    nodes: MiniSlurm, small: Small, profile: Path, tmp_path: Path, undisturbed: Path
) -> None:
    folder = tmp_path / "run"
    job = submit(nodes, small, profile, folder)
    until(lambda: step(folder) >= 8, "step 8")
    nodes.out("scontrol", "requeue", job)
    until(lambda: step(folder) >= 25, "step 25")
    nodes.kill_node("n2")
    nodes.start_node("n2")
    finished(nodes, job, folder)
    same_end(folder, undisturbed)
