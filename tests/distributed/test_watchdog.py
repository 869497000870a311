"""Who hangs is named, and nobody else: one that reads for ever, one that is slow to save, one that sleeps."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from kovqa_core.distributed.heartbeat import (
    PHASE_NAMES,
    Heartbeat,
    WatchedPeer,
    find_hung_ranks,
    find_lost_peer,
    find_silent_peer,
)
from kovqa_core.errors import LostError
from kovqa_core.index.reader import open_index
from kovqa_core.runs.folder import RESULT_FILE

from tests.conftest import Small, clean_env, command, training


def peer(rank: int, step: int, phase: str, unchanged: float, waiting: bool = False) -> WatchedPeer:
    return WatchedPeer(
        rank,
        f"n{rank}",
        heartbeat=Heartbeat(step, PHASE_NAMES.index(phase), waiting),
        unchanged_seconds=unchanged,
    )


def test_the_one_behind_is_named_and_not_those_who_wait() -> None:
    error = find_hung_ranks(
        [peer(0, 7, "computing", 99), peer(1, 7, "reading a batch", 99), peer(2, 7, "evaluating", 99, True)],
        60,
    )
    assert error is not None
    assert error.message == "rank 1 on n1 hangs: no progress for 1.6 minutes (step 7: reading a batch)"


def test_saving_may_take_longer_than_a_step() -> None:
    others = [peer(1, 8, "computing", 500), peer(2, 8, "reading a batch", 1)]
    assert find_hung_ranks([peer(0, 7, "saving", 500), *others], 60) is None
    assert find_hung_ranks([peer(0, 7, "saving", 601), *others], 60) is not None


def test_all_who_wait_for_each_other_are_named() -> None:
    error = find_hung_ranks([peer(0, 7, "computing", 61, True), peer(1, 7, "computing", 61, True)], 60)
    assert error is not None
    assert error.message.startswith("rank 0 on n0, rank 1 on n1 hang: no progress")


def test_a_process_that_is_silent_hangs_and_one_that_ended_is_lost() -> None:
    one = WatchedPeer(1, "n1", silent_seconds=61)
    assert find_lost_peer([one]) is None
    assert "rank 1 on n1 hangs: nothing heard for 1 minutes" in str(find_silent_peer([one], 60))
    one.lost, one.silent_seconds = "Connection timed out", 0
    assert isinstance(find_lost_peer([one]), LostError)
    assert find_silent_peer([one], 60) is None


def test_a_rank_that_reads_for_ever_is_named_and_ends_the_run(small: Small, tmp_path: Path) -> None:
    # A file system that does not answer: whoever opens this image waits for ever.
    blocking_image = Path(open_index(small.index).split("train")[3].image).name
    (tmp_path / "sitecustomize.py").write_text(
        f"""import sys, time

def wait(event, arguments):
    if event == "open" and str(arguments[0]).endswith({blocking_image!r}):
        time.sleep(3600)

sys.addaudithook(wait)
""",
        "utf-8",
    )
    words = training(
        small,
        "optim.steps=90",
        "profile.watchdog_minutes=0.1",
        "profile.processes_per_node=2",
    )
    done = subprocess.run(
        command([*words, "-o", tmp_path / "run"]),
        env=clean_env(PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 6, done.stderr
    named = next(rank for rank in (0, 1) if f"rank {rank} on {socket.gethostname()} hangs" in done.stderr)
    assert "reading a batch" in done.stderr
    stack = (tmp_path / "run" / "logs" / f"rank-{named}.log").read_text(encoding="utf-8")
    assert "image_pipeline.py" in stack


@pytest.mark.soak
def test_a_machine_that_sleeps_raises_no_alarm(small: Small, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = training(small, "optim.steps=300", "profile.watchdog_minutes=0.1", "profile.processes_per_node=2")
    process = subprocess.Popen(
        command([*words, "-o", folder]), env=clean_env(), stderr=subprocess.PIPE, text=True
    )
    while not (folder / "log.jsonl").exists():
        time.sleep(0.1)
    mine = [
        int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in _line(p)
    ]
    for number, seconds in ((signal.SIGSTOP, 15), (signal.SIGCONT, 0)):
        for pid in mine:
            os.kill(pid, number)
        time.sleep(seconds)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    assert (folder / RESULT_FILE).exists()


def _line(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
