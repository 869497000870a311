"""A run on a real SLURM of two nodes ends by itself, whatever happens to it, as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from kovqa_core.runs.consent import TRUSTED_RUNS_FOLDER
from kovqa_core.runs.folder import RESULT_FILE

from tests.conftest import Small, clean_env, command, left_out
from tests.disturbed import STEPS, same_end, step, until, words
from tests.tools.mini_slurm import MiniSlurm
from tests.tools.training_log import read_log

pytestmark = pytest.mark.xdist_group("slurm")  # one cluster, one undisturbed run

PROFILE = """
launcher: sbatch
nodes: 2
processes_per_node: 1
precision: fp32
watchdog_minutes: 1
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


def submit(
    nodes: MiniSlurm, small: Small, profile: Path, folder: Path, *assignments: str, **environment: str
) -> str:
    """`kovqa train -p …`: the job's number."""
    done = nodes.run(
        command([*words(small, profile, folder, *assignments), "-q"]),
        env=clean_env(SLURM_CONF=nodes.conf, **environment), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def state(nodes: MiniSlurm, job: str) -> str:
    return nodes.out("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")


def finished(nodes: MiniSlurm, job: str, folder: Path) -> None:
    """Wait for the run's own end; its logs where it comes to another."""

    def ended() -> bool:
        return nodes.out("squeue", "-h", "-t", "all", "-j", job, "-o", "%T") in (
            "COMPLETED",
            "FAILED",
            "CANCELLED",
        )

    until(ended, "the job's end", 600)
    logs = "\n".join(f"{p}:\n{p.read_text()[-2000:]}" for p in (folder / "logs").iterdir())
    assert (folder / RESULT_FILE).exists(), logs


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
    """It has setup lines and variables: the job asks nobody about them, in a home that has gone meanwhile."""
    folder, home, marker = tmp_path / "run", tmp_path / "home", tmp_path / "setup ran"
    lines = (f"profile.setup=[\"echo $SLURMD_NODENAME >> '{marker}'\"]", "profile.env.MARKER=marker")
    job = submit(nodes, small, profile, folder, *lines, KOVQA_HOME=str(home))
    assert len(list((home / TRUSTED_RUNS_FOLDER).iterdir())) == 1
    shutil.rmtree(home)
    until(lambda: step(folder) >= 8, "step 8")
    nodes.out("scontrol", "requeue", job)
    until(lambda: step(folder) >= 25, "step 25")
    nodes.kill_node("n2")
    nodes.start_node("n2")
    finished(nodes, job, folder)
    same_end(folder, undisturbed)
    assert marker.read_text().split() == ["n1"] * 3
    assert not home.exists()


def disturb(nodes: MiniSlurm, job: str, how: str) -> None:
    """What happens to jobs."""
    if how == "signal":  # what the time limit sends beforehand, to the batch script
        nodes.out("scancel", "--signal=USR1", "--batch", job)
    elif how == "preempted":
        nodes.out(
            "sbatch", "-p", "urgent", "-N2", "--ntasks-per-node=4", "-o", "/dev/null", "--wrap", "sleep 2"
        )
    elif how == "first node":  # where the batch script runs
        nodes.kill_node("n1")
        nodes.start_node("n1")
    elif how == "node away":  # long enough for SLURM to give it up
        nodes.kill_node("n2")
        until(lambda: state(nodes, job) != "RUNNING", "SLURM misses n2")
        nodes.start_node("n2")
    elif how == "rank killed":
        nodes.run(["bash", "-c", "kill -KILL $(pgrep -f '[w]orker.py' | tail -n 1)"], on="n2", check=True)


@pytest.mark.soak
@pytest.mark.parametrize("how", ["signal", "preempted", "first node", "node away", "rank killed"])
def test_a_job_disturbed_twice(
    nodes: MiniSlurm, small: Small, profile: Path, tmp_path: Path, undisturbed: Path, how: str
) -> None:
    folder = tmp_path / "run"
    job = submit(nodes, small, profile, folder)
    for at in (8, 80):
        until(lambda at=at: step(folder) >= at, f"step {at}")
        disturb(nodes, job, how)
    finished(nodes, job, folder)
    same_end(folder, undisturbed)
    assert "Restarts=2" in nodes.out("scontrol", "show", "job", job)


@pytest.mark.soak
def test_images_that_each_node_copies_to_its_disk(
    nodes: MiniSlurm, small: Small, profile: Path, tmp_path: Path, undisturbed: Path
) -> None:
    """They are not here when the job is queued, and copied again when it comes back."""
    folder, disk, copied = tmp_path / "run", tmp_path / "디스크", tmp_path / "copied"
    # The nodes of this cluster share their disks: one copies, the other waits for it.
    copy = f"echo $SLURMD_NODENAME >> {copied}; flock {copied} sh -c '[ -d {disk} ] || cp -r \"{small.root}/images\" {disk}'"
    settings = (f"data.images={disk}", f"profile.slurm.node_setup=[{json.dumps(copy, ensure_ascii=False)}]")
    job = submit(nodes, small, profile, folder, *settings)
    until(lambda: step(folder) >= 8, "step 8")
    nodes.out("scontrol", "requeue", job)
    finished(nodes, job, folder)
    same_end(folder, undisturbed)
    assert sorted(copied.read_text().split()) == ["n1", "n1", "n2", "n2"]


LONG = 2000  # steps: more than a minute, SLURM's shortest limit


@pytest.mark.soak
def test_the_time_limit(nodes: MiniSlurm, small: Small, profile: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = (
        f"optim.steps={LONG}",
        'profile.slurm.time="1"',
        "profile.slurm.signal_seconds=45",
        "save.every_steps=1000",
    )
    job = submit(nodes, small, profile, folder, *settings)
    finished(nodes, job, folder)
    assert [row["step"] for row in read_log(folder) if row["kind"] == "train"] == list(range(1, LONG + 1))
    assert "Restarts=0" not in nodes.out("scontrol", "show", "job", job)
