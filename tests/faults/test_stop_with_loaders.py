"""Ctrl-C, TERM and HUP where processes prepare batches: they outlive the signal, and end with their rank."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kovqa_core.index.reader import open_index
from kovqa_core.runs.folder import follow_pointer

from tests.cli.test_predict import lines
from tests.cli.test_predict_workers import many
from tests.conftest import Small, clean_env, command, training
from tests.disturbed import ended, marked_processes
from tests.faults.test_kill import logged_steps

pytestmark = pytest.mark.xdist_group("stops")  # one undisturbed run

STEPS = 120
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")

# A rank: it is asked to stop, takes some batches more, and ends well.
RANK = f"""
import signal, time
from pathlib import Path
from kovqa_core.models.batches import iterate_batches

class Slow:
    def encode(self, example, images, train, rng):
        time.sleep(0.02)
        return example
    def collate(self, items):
        return items

received = []
for name in {SIGNALS}:
    signal.signal(getattr(signal, name), lambda number, _: received.append(number))
keys = [[(0, n)] for n in range(10_000)]
for (number,) in iterate_batches(iter(keys), range(10_000), Path(), Slow(), train=False, workers=2):
    if not number:
        print("begun", flush=True)
    if received and (until := locals().get("until") or number + 60) == number:
        break
print("saved", *received, flush=True)
"""


@pytest.fixture
def rank(mark: str) -> Iterator[subprocess.Popen[str]]:
    """A process with two loaders, in a group of its own, that has had its first batch."""
    name, value = mark.split("=")
    process = subprocess.Popen(
        [sys.executable, "-c", RANK], env={**os.environ, name: value}, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    assert len(marked_processes(mark)["launcher"]) == 3
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("name", SIGNALS)
def test_loaders_outlive_a_signal_to_the_group(rank: subprocess.Popen[str], mark: str, name: str) -> None:
    number = getattr(signal, name)
    os.killpg(rank.pid, number)
    out, err = rank.communicate(timeout=60)
    assert (rank.returncode, out) == (0, f"saved {int(number)}\n"), err
    assert ended(mark)


def test_loaders_end_with_a_killed_rank(rank: subprocess.Popen[str], mark: str) -> None:
    rank.kill()
    rank.wait()
    assert ended(mark, 3)


# ------------------------------------------------------------------------------------- whole runs


def train_command(small: Small, folder: Path) -> list[str]:
    words = training(
        small, f"optim.steps={STEPS}", f"eval.every_steps={STEPS}", "data.augment=crop", "model.drop_path=0.2",
        "profile.loader_workers=2",
    )  # fmt: skip
    return command([*words, "--resume", "-o", folder, "-q"])


def run(small: Small, folder: Path) -> None:
    done = subprocess.run(
        train_command(small, folder),
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def weights(folder: Path) -> dict[str, bytes]:
    """Every file of the last step folder."""
    last = folder / f"step-{STEPS:06d}"
    return {str(p.relative_to(last)): p.read_bytes() for p in last.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def undisturbed(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run(small, folder)
    return folder


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_stopped_run_has_a_checkpoint_and_ends_alike(
    small: Small, undisturbed: Path, tmp_path: Path, mark: str, name: str
) -> None:
    folder, number = tmp_path / "run", getattr(signal, name)
    variable, value = mark.split("=")
    process = subprocess.Popen(
        train_command(small, folder), env=clean_env(**{variable: value}), stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and logged_steps(folder) < 5:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    stopped = follow_pointer(folder, "last")
    assert stopped is not None, (folder / "logs" / "rank-0.log").read_text()
    assert stopped.name < f"step-{STEPS:06d}", "it ended before it could be stopped"
    assert ended(mark)
    run(small, folder)
    assert weights(folder) == weights(undisturbed)


def test_a_stopped_table_is_resumed(small: Small, trained: Path, tmp_path: Path, mark: str) -> None:
    table, output, profile = many(small, tmp_path, 25), tmp_path / "out.jsonl", tmp_path / "p.yaml"
    profile.write_text("name: p\nprocesses_per_node: 1\nloader_workers: 2\nthreads: 1\n")
    words = ["predict", "--model", trained, "--images", open_index(small.index).images, "--input", table]
    words += ["-o", output, "--batch", "4", "-p", profile, "-q"]
    variable, value = mark.split("=")
    process = subprocess.Popen(command(words), env=clean_env(**{variable: value}), stderr=subprocess.PIPE)
    parts = tmp_path / "out.jsonl.parts"
    rank_file = parts / "rank-0.jsonl"
    while process.poll() is None and not (rank_file.exists() and rank_file.stat().st_size > 500):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert ended(mark)
    assert "Traceback" not in (parts / "logs" / "rank-0.log").read_text(encoding="utf-8")
    done = subprocess.run(command(words), env=clean_env(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in lines(output)] == [row["id"] for row in lines(table)]
