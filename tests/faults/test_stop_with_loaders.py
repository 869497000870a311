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

from tests.cli.test_predict import lines
from tests.cli.test_predict_workers import many
from tests.conftest import Small, clean_env, command
from tests.disturbed import ended, marked_processes

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")

# A rank: it is asked to stop, takes some batches more, and ends well.
RANK = f"""
import signal, time
from pathlib import Path
from kovqa_core.models.batches import ModelBatch, iterate_batches

class Slow:
    def encode(self, example, images, train, rng):
        time.sleep(0.02)
        return example
    def collate(self, items):
        return ModelBatch({{}}, [str(n) for n in items])

received = []
for name in {SIGNALS}:
    signal.signal(getattr(signal, name), lambda number, _: received.append(number))
keys = [[(0, n)] for n in range(10_000)]
for batch in iterate_batches(iter(keys), range(10_000), Path(), Slow(), train=False, workers=2):
    number = int(batch.ids[0])
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
