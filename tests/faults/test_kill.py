"""kill -9 of the launcher, of one rank, of all: the resumed run ends with the same bits.

A sample runs with the other tests; `make soak` kills ten times each.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from kovqa_core.runs.folder import RESULT_FILE, follow_pointer

from tests.conftest import Small, clean_env, command, training
from tests.disturbed import ended, marked_processes

pytestmark = pytest.mark.xdist_group("kills")  # one undisturbed run

STEPS = 160  # enough for ten kills on a fast machine
VICTIMS = ("launcher", "rank", "all")


def train_command(small: Small, folder: Path) -> list[str]:
    words = training(
        small, f"optim.steps={STEPS}", "eval.every_steps=40", "save.every_steps=5", "data.augment=crop",
        "model.drop_path=0.2", "profile.processes_per_node=2",
    )  # fmt: skip
    return command([*words, "--resume", "-o", folder])


@pytest.fixture(scope="module")
def undisturbed(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    done = subprocess.run(
        train_command(small, folder),
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def kill(victim: str, mark: str, rng: random.Random) -> None:
    processes = marked_processes(mark)
    pids = {
        "launcher": processes["launcher"],
        "rank": rng.sample(processes["rank"], 1) if processes["rank"] else processes["launcher"],
        "all": [*processes["launcher"], *processes["torchrun"], *processes["rank"]],
    }[victim]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_each_killed_once(small: Small, tmp_path: Path, undisturbed: Path) -> None:
    """One run: its launcher is killed, then a rank of the next launch, then all processes of the one after."""
    kill_and_resume(small, tmp_path / "run", undisturbed, VICTIMS)


@pytest.mark.soak
@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_ten_times(small: Small, tmp_path: Path, undisturbed: Path, victim: str) -> None:
    kill_and_resume(small, tmp_path / "run", undisturbed, (victim,) * 10)


def kill_and_resume(small: Small, folder: Path, undisturbed: Path, victims: Sequence[str]) -> None:
    """Start, kill, start again …; the end must be bit-identical and nothing may be left running."""
    wanted = len(victims)
    rng = random.Random("-".join(victims))
    kills = 0
    while not (folder / RESULT_FILE).exists():
        mark = f"KOVQA_TEST={uuid.uuid4().hex}"
        name, value = mark.split("=")
        process = subprocess.Popen(
            train_command(small, folder), env=clean_env(**{name: value}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        if kills < wanted:
            # From "has not begun" to "nearly finished": most moments fall where steps are made.
            time.sleep(rng.uniform(0.2, 2.0) if rng.random() < 0.2 else 0)
            wait_for_progress(folder, rng, process)
            kill(victims[kills], mark, rng)
            kills += process.poll() is None or process.returncode != 0
        output, _ = process.communicate(timeout=300)
        if kills >= wanted and process.returncode == 0:
            break
        if process.returncode == 0:
            raise AssertionError("the run ended before it could be killed: make it longer")
    assert kills == wanted, output
    assert last_checkpoint_files(folder) == last_checkpoint_files(undisturbed)
    assert ended(mark), "processes were left behind"


def wait_for_progress(folder: Path, rng: random.Random, process: subprocess.Popen[str]) -> None:
    """Wait until the run has made some steps more than it had, then a random moment."""
    before = logged_steps(folder)
    more = rng.randrange(0, 4)
    while process.poll() is None and logged_steps(folder) < min(STEPS - 2, before + more):
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.3))


def logged_steps(folder: Path) -> int:
    """Lines of the log."""
    log = folder / "log.jsonl"
    return log.read_bytes().count(b'"train"') if log.exists() else 0


def last_checkpoint_files(folder: Path) -> dict[str, bytes]:
    last = follow_pointer(folder, "last")
    assert last is not None
    assert last.name == f"step-{STEPS:06d}"
    return {str(p.relative_to(last)): p.read_bytes() for p in last.rglob("*") if p.is_file()}
