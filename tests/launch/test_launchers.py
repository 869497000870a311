"""What launchers decide beyond their command: names, machines, ports, exit codes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from kovqa_core.distributed.rank_info import slurm_rendezvous_port
from kovqa_core.errors import SettingsError
from kovqa_core.launch.launchers import LAUNCHERS, check_launcher
from kovqa_core.launch.launchers.slurm_options import NODE_SCRIPT
from kovqa_core.settings.profile import Profile


def profile(**values: object) -> Profile:
    return Profile.model_validate({"name": "x", **values})


def test_unknown_launchers_list_the_known_ones() -> None:
    with pytest.raises(
        SettingsError, match="profile x: unknown launcher 'pbs'; known: sbatch, srun, torchrun"
    ):
        check_launcher(profile(launcher="pbs"))
    with pytest.raises(
        SettingsError, match=r"p\.yaml:3:1: unknown launcher 'torchrunn'; did you mean torchrun"
    ):
        check_launcher(profile(launcher="torchrunn"), "p.yaml:3:1")


@pytest.mark.parametrize(
    ("launcher", "nodes", "starts_here", "waits_for_all"),
    [
        ("torchrun", 1, True, True),
        ("torchrun", 2, False, False),
        ("srun", 1, False, True),
        ("srun", 2, False, True),
        ("sbatch", 1, False, False),
    ],
)
def test_where_processes_start_and_who_waits(
    launcher: str, nodes: int, starts_here: bool, waits_for_all: bool
) -> None:
    settings = profile(launcher=launcher, nodes=nodes, rendezvous="h:1")
    assert LAUNCHERS[launcher].starts_here(settings) == starts_here
    assert LAUNCHERS[launcher].waits_for_all(settings) == waits_for_all


@pytest.mark.parametrize(
    ("launcher", "tasks", "first", "others"),
    [
        ("torchrun", "gpu", 0, 0),
        ("srun", "gpu", 75, 0),
        ("sbatch", "gpu", 75, 0),
        ("srun", "node", 0, 0),
        ("sbatch", "node", 0, 0),
    ],
)
def test_exit_codes_of_workers_that_stopped(launcher: str, tasks: str, first: int, others: int) -> None:
    settings, module = profile(launcher=launcher, slurm={"tasks": tasks}), LAUNCHERS[launcher]
    assert module.stop_exit_code(settings, is_main_process=True) == first
    assert module.stop_exit_code(settings, is_main_process=False) == others


@pytest.mark.parametrize(("job", "step"), [(21, 2), (1, 0), (98765, 3), (4294901759, 1)])
def test_node_script_and_workers_agree_on_the_port(tmp_path: Path, job: int, step: int) -> None:
    """The formula stands in bash and in Python: torchrun needs it before any Python of ours runs."""
    tool = tmp_path / "scontrol"
    tool.write_text("#!/bin/sh\necho n1\necho n2\n")
    tool.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NODEID": "0",
           "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}  # fmt: skip
    words = ["bash", NODE_SCRIPT, tmp_path / "error.json", "sh", "-c", "echo $PET_RDZV_ENDPOINT"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=30, check=True)
    port = slurm_rendezvous_port(job, step)
    assert done.stdout == f"n1:{port}\n"
    assert 10000 <= port < 30000
