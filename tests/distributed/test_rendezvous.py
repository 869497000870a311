"""Processes find each other, or say where they looked; one run at a time holds a folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from kovqa_core.distributed import process_group, run_lock
from kovqa_core.distributed.process_group import clock_skew_warning
from kovqa_core.distributed.rank_info import RankInfo, first_slurm_host, rank_from_slurm, rank_from_torchrun
from kovqa_core.distributed.watchdog import WatchdogConfig
from kovqa_core.errors import MachineError, SettingsError

from tests.tools.mini_slurm import MiniSlurm

HOLDER = """
import fcntl, sys, time
stream = open(sys.argv[1], "a+")
fcntl.flock(stream, fcntl.LOCK_EX)
stream.write(sys.argv[2])
stream.flush()
print("held", flush=True)
time.sleep(60)
"""


def test_rank_from_torchrun() -> None:
    environ = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "h1", "MASTER_PORT": "29500"}
    assert rank_from_torchrun({**environ, "SLURM_PROCID": "9", "SLURM_NTASKS": "9"}) == RankInfo(
        3, 1, 4, "h1", 29500
    )
    assert rank_from_torchrun({}) == RankInfo(0, 0, 1)


def test_rank_from_slurm(cluster: MiniSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.conf)
    environ = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "21", "SLURM_STEP_ID": "2",
            "SLURM_JOB_NODELIST": "n[1-2]"}  # fmt: skip
    expected = RankInfo(3, 1, 4, "n1", 10338, may_be_bound=True)
    assert rank_from_slurm({**environ, "RANK": "9", "WORLD_SIZE": "9"}) == expected
    assert rank_from_slurm({**environ, "SLURM_STEP_NUM_NODES": "1"}).host == "127.0.0.1"


def test_a_node_without_slurms_tools_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MachineError, match=r"scontrol does not name the hosts of 'n\[1-2\]'"):
        first_slurm_host("n[1-2]")


@pytest.mark.parametrize("rank", [0, 1])
def test_nobody_comes(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "_RENDEZVOUS_TIMEOUT", timedelta(seconds=1))
    monkeypatch.setattr(os, "environ", {**os.environ, "GLOO_SOCKET_IFNAME": "lo"})
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    watch = WatchdogConfig(rank, 1, alarm=print, warn=print)
    with pytest.raises(MachineError, match=f"rank {rank} of 2 .* at 127.0.0.1, port {port}, interface lo"):
        process_group.init_process_group(RankInfo(rank, 0, 2, "127.0.0.1", port), "cpu", watch)


def test_clocks_that_differ_are_named() -> None:
    assert clock_skew_warning([("h1", 100.0), ("h2", 103.0)]) is None
    assert str(clock_skew_warning([("h1", 100.0), ("h2", 160.0), ("h3", 130.0)])).startswith(
        "the clock of h2 is 60 s ahead of h1's"
    )


def held(path: Path, **holder: object) -> subprocess.Popen[str]:
    """Another process that holds a run folder."""
    words = [sys.executable, "-c", HOLDER, str(path), json.dumps(holder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_two_runs_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_LOCAL_WAIT_SECONDS", 0.6)
    with held(tmp_path / run_lock.LOCK_FILE, host=socket.gethostname(), pid=7, job="") as other:
        with pytest.raises(SettingsError, match=r"another run is training in .* \(process 7 on"):
            run_lock.acquire_run_lock(tmp_path, {})
        other.kill()
        other.wait()
        assert run_lock.acquire_run_lock(tmp_path, {})  # the system takes a dead process's lock away


def test_a_job_queued_again_takes_over_from_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_LOCAL_WAIT_SECONDS", 0.6)
    with held(tmp_path / run_lock.LOCK_FILE, host="dead-node", pid=7, job="21") as dead:
        with run_lock.acquire_run_lock(tmp_path, {"SLURM_JOB_ID": "21"}) as stream:
            stream.seek(0)
            assert json.load(stream)["job"] == "21"
        dead.kill()
