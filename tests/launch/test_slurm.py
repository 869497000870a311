"""What a real SLURM says to our options and scripts: taken, queued, refused in its own words."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Small, clean_env, command, training
from tests.tools.mini_slurm import MiniSlurm

ODD = "첫 '실행' \"둘\" #1 100% $HOME"  # a folder's name that every quoting rule has to survive


def on_cluster(cluster: MiniSlurm, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """A kovqa command on the login host."""
    env = clean_env(SLURM_CONF=cluster.conf)
    there = ["env", "-C", folder, *command(words)]
    return cluster.run(there, env=env, capture_output=True, text=True, timeout=120)


def small_on(small: Small, profile: object, *assignments: str) -> list[object]:
    """`train …` of a small model on another profile."""
    return [*training(small, *assignments), "-p", profile]  # the last -p counts


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Two tasks on a node, without GPUs; the last key is `slurm`."""
    file = tmp_path / "내 기계.yaml"
    text = "launcher: sbatch\nprocesses_per_node: 2\nprecision: fp32\nslurm: {gpus: none, time: 10, cpus_per_task: 1}\n"
    file.write_text(text, "utf-8")
    return file


@pytest.mark.parametrize("name", ["slurm-a100x4", "slurm-a100x4x2", "slurm-rtx3090x4"])
def test_slurm_would_take_it(cluster: MiniSlurm, small: Small, tmp_path: Path, name: str) -> None:
    settings = (
        "profile.slurm.cpus_per_task=1",
        "profile.precision=fp32",
        "profile.command_prefix=[env, A=1]",
    )
    words = small_on(small, name, *settings)
    done = on_cluster(cluster, tmp_path, *words, "--check", "-o", ODD)
    assert done.returncode == 0, done.stderr
    assert "to start at" in done.stderr
    assert "in partition main" in done.stderr
    assert f"inside `env A=1 {sys.executable}`: Python 3." in done.stderr
    assert cluster.out("squeue", "-h") == ""  # asked, not queued


def test_a_job_is_queued_runs_and_writes_where_it_says(
    cluster: MiniSlurm, small: Small, tmp_path: Path, profile: Path
) -> None:
    words = small_on(small, profile, "profile.python=/bin/echo")  # in place of the workers
    done = on_cluster(cluster, tmp_path, *words, "-o", ODD, "-q")
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    assert job.isdigit()
    cluster.wait_job(job, "COMPLETED")
    output = (tmp_path / ODD / "logs" / f"slurm-{job}.out").read_text("utf-8")
    assert output.count(f"{tmp_path / ODD / 'run.yaml'}\n") == 2  # each task was given the right path
    job_info = cluster.out("scontrol", "show", "job", job)
    assert f"JobName=kovqa-{ODD}" in job_info
    assert f"WorkDir={tmp_path}\n" in job_info


def test_a_folder_is_queued_once_and_its_job_is_listed(
    cluster: MiniSlurm, small: Small, tmp_path: Path, profile: Path
) -> None:
    setup = 'profile.slurm.node_setup=["echo 디스크가 없음 >&2; false"]'
    words = [*small_on(small, profile, "profile.slurm.options=[--hold]", setup), "-o", "runs/r"]
    done = on_cluster(cluster, tmp_path, *words, "-q")
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    (listed,) = json.loads(on_cluster(cluster, tmp_path, "runs", "--json").stdout)["runs"]
    assert (listed["state"], listed["job"], listed["job_state"]) == ("queued", job, "PENDING (JobHeldUser)")
    script = (tmp_path / "runs" / "r" / "job.sh").read_bytes()
    again = on_cluster(cluster, tmp_path, *words, "--set", "profile.slurm.time=20")
    assert again.returncode == 2
    assert f"runs/r is job {job} of SLURM already: PENDING (JobHeldUser)" in again.stderr
    assert (
        tmp_path / "runs" / "r" / "job.sh"
    ).read_bytes() == script  # SLURM has its copy, people have this one
    cluster.out("scontrol", "release", job)
    cluster.wait_job(job, "FAILED")  # its setup fails: no worker began, and it does not come back
    shown = on_cluster(cluster, tmp_path, "runs", "show", "r").stdout
    failure = "slurm.node_setup failed on n1 with code 1: 디스크가 없음"
    assert shown.startswith(f"runs/r: failed: {failure}, job {job} FAILED (NonZeroExitCode)\n")
    assert "Restarts=0" in cluster.out("scontrol", "show", "job", job)


@pytest.mark.parametrize("launcher", ["sbatch", "srun"])
def test_unknown_partition(
    cluster: MiniSlurm, small: Small, tmp_path: Path, profile: Path, launcher: str
) -> None:
    words = small_on(small, profile, f"profile.launcher={launcher}", "profile.slurm.partition=없음")
    done = on_cluster(cluster, tmp_path, *words, "-o", "r")
    assert done.returncode == 4, done.stderr
    assert "Invalid partition name specified" in done.stderr.splitlines()[-1]


def test_more_gpus_than_a_node_has(cluster: MiniSlurm, small: Small, tmp_path: Path) -> None:
    words = small_on(small, "slurm-a100x4", "profile.processes_per_node=8", "profile.slurm.cpus_per_task=1")
    done = on_cluster(cluster, tmp_path, *words, "-o", "r")
    assert done.returncode == 4
    assert "Requested node configuration is not available" in done.stderr.splitlines()[-1]


def test_what_srun_waits_for_is_said_and_ctrl_c_takes_the_job_back(
    cluster: MiniSlurm, small: Small, tmp_path: Path, profile: Path
) -> None:
    words = small_on(small, profile, "profile.launcher=srun", "profile.nodes=4")  # the cluster has two
    waiting = cluster.popen(
        command([*words, "-o", tmp_path / "r"]), env=clean_env(SLURM_CONF=cluster.conf), stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert waiting.stderr is not None
    line = next(line for line in waiting.stderr if line.startswith("SLURM:"))
    assert "queued and waiting for resources" in line
    waiting.send_signal(signal.SIGINT)
    waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    end = time.monotonic() + 20
    while cluster.out("squeue", "-h") and time.monotonic() < end:
        time.sleep(0.2)
    assert cluster.out("squeue", "-h") == ""


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("profile.setup=[module load cuda]", "module: command not found"),
        ("profile.command_prefix=[no-such-container, exec]", "no-such-container"),
        ("profile.env={PYTHONPATH: BROKEN}", "ImportError: nothing is here"),
    ],
)
def test_a_worker_that_cannot_start_says_why(
    cluster: MiniSlurm, small: Small, tmp_path: Path, profile: Path, assignment: str, words: str
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "kovqa_core.py").write_text("raise ImportError('nothing is here')")
    changed = assignment.replace("BROKEN", str(tmp_path / "broken"))
    done = on_cluster(
        cluster, tmp_path, *small_on(small, profile, "profile.launcher=srun", changed), "-o", "r"
    )
    assert done.returncode == 6, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "a worker could not start" in last
    assert words in last


def test_the_first_failing_task_keeps_its_meaning(
    cluster: MiniSlurm, small: Small, tmp_path: Path, profile: Path
) -> None:
    shutil.copytree(small.root / "images", tmp_path / "그림")
    missing = sorted((tmp_path / "그림").iterdir())[::2]  # more than may be left out
    for image in missing:
        image.unlink()
    words = small_on(small, profile, "profile.launcher=srun", f"data.images={tmp_path / '그림'}")
    done = on_cluster(cluster, tmp_path, *words, "-o", "r")
    assert done.returncode == 3, done.stderr  # a matter of the data, through srun and back
    assert any(image.name in done.stderr.splitlines()[-1] for image in missing)


def test_no_slurm_here(small: Small, tmp_path: Path) -> None:
    env = clean_env(PATH=str(tmp_path))
    for name, tool in (("slurm-a100x4", "sbatch"), ("slurm-rtx3090x4", "srun")):
        words = command([*small_on(small, name), "-o", tmp_path / name])
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 4
        assert f"there is no {tool} here" in done.stderr
        assert not (tmp_path / name).exists()
        plan = subprocess.run([*words, "-n"], env=env, capture_output=True, text=True)
        assert plan.returncode == 0
        assert f"on paper only: GPUs, memory and cores are what profile {name} says" in plan.stderr


def test_a_profile_of_this_cluster(cluster: MiniSlurm, small: Small, tmp_path: Path) -> None:
    done = on_cluster(cluster, tmp_path, "profiles", "detect", "-o", "우리/기계.yaml")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "우리" / "기계.yaml").read_text("utf-8")
    assert "main (2 nodes, 4 × GPU, 4 cores, limit infinite)" in text
    words = [*small_on(small, "우리/기계.yaml"), "-n", "--json", "-o", "r"]
    planned = json.loads(on_cluster(cluster, tmp_path, *words).stdout)
    assert planned["command"].startswith("sbatch")
    assert "--partition=main" in planned["script"]
