"""A container's small /dev/shm: named at once, never waited at for ever, and not read as a full disk."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import clean_env, left_out
from tests.tools.mini_hosts import possible

LOADERS = """
import time
from pathlib import Path
import torch
from kovqa_core.errors import KovqaError
from kovqa_core.files import disk_errors
from kovqa_core.models.batches import ModelBatch, iterate_batches

class Large:
    def encode(self, example, images, *, train, rng):
        return example
    def collate(self, items):
        tensors = {"image": torch.ones(1000, 1000), "none": None, "empty": torch.zeros(0)}
        return ModelBatch(tensors, [str(n) for n in items])

keys = [[(0, n)] for n in range(20)]
try:
    with disk_errors(Path("out.jsonl")):  # as a table is answered
        batches = list(iterate_batches(iter(keys), range(20), Path(), Large(), train=False, workers=2))
    print(len(batches), "batches of", float(batches[-1].tensors["image"].sum()))
except KovqaError as error:
    print(type(error).__name__, error.message, error.hint, sep="; ")
"""
POOL = """
from kovqa_core.errors import KovqaError
from kovqa_core.process_pool import parallel_map
try:
    print(parallel_map(abs, [(-3,)]))
except KovqaError as error:
    print(type(error).__name__, error.message, error.hint, sep="; ")
"""


def printed(script: str, *before: str) -> str:
    """What a script prints after some shell lines, with mounts of its own."""
    if not possible():
        left_out("needs root and unshare(1)")
    shell = "; ".join([*before, 'exec "$@"'])
    words = ["unshare", "-m", "sh", "-c", shell, "sh", sys.executable, "-c", script]
    done = subprocess.run(words, env=clean_env(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shm(size: str) -> str:
    return f"mount -t tmpfs -o size={size} tmpfs /dev/shm"


@pytest.mark.parametrize(("size", "of"), [("11m", "11 MB"), ("4k", "0.00391 MB")])
def test_batches_that_do_not_fit(size: str, of: str) -> None:
    """Two batches fit, or not even a semaphore."""
    text = printed(LOADERS, shm(size))
    assert text.startswith("MachineError; /dev/shm is full: ")
    assert f"of {of} are free" in text
    assert "docker run --shm-size=8g" in text
    assert "profile.loader_workers=0" in text


def test_a_pool_without_shared_memory() -> None:
    text = printed(POOL, shm("4k"))
    assert text.startswith("MachineError; /dev/shm is full: 0 MB of 0.00391 MB")
    assert "loader_workers" not in text  # an index has none
    assert printed(POOL, shm("8m")) == "[3]\n"


def test_too_many_open_files() -> None:
    text = printed(LOADERS, "ulimit -n 24")
    assert text.startswith("MachineError; more files are open than a process may have here (24)")
    assert "ulimit -n 65536" in text
