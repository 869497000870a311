"""Trainings in forks of one loaded process, each killed before its n-th operation on a file of the run folder.

A training takes a fraction of a second this way, so that it can be killed at every moment of a save. The server
reads one request a line (folder, kill_at) and answers with exit code and operations.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.tools.forked_commands import Started, count_operations

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class EndedTraining:
    """What came of a training: its exit code (-9: killed), what it printed, its operations on files."""

    code: int
    text: str
    operations: tuple[str, ...]


class TrainingForks:
    """The server; a context manager."""

    def __enter__(self) -> TrainingForks:
        words = [sys.executable, "-m", "tests.train.killed_trainings"]
        self._server = subprocess.Popen(
            words,
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)

    def train(self, folder: Path, kill_at: int = 0) -> EndedTraining:
        """Train the run of a folder to its end, or up to an operation on a file; it goes on where it was."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps([str(folder), kill_at]), file=self._server.stdin, flush=True)
        line = self._server.stdout.readline()
        assert line, "the server of forks has ended"
        code, text, operations = json.loads(line)
        return EndedTraining(code, text, tuple(operations))


def _serve() -> None:
    wire = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    is_warm = False
    for line in sys.stdin:
        folder, kill_at = json.loads(line)
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            if not is_warm:  # the first training of a process loads and builds for two seconds
                shutil.copytree(folder, scratch / "warm")
                _run_training(scratch / "warm")
                is_warm = True
            pid = os.fork()
            if pid == 0:
                _train(Path(folder), kill_at, scratch)
            _, status = os.waitpid(pid, 0)
            log, text = scratch / "operations", scratch / "text"
            operations = log.read_text().splitlines() if log.exists() else []
            answer = os.waitstatus_to_exitcode(status), text.read_text(), operations
        os.write(wire, (json.dumps(answer) + "\n").encode())


def _run_training(folder: Path) -> None:
    import torch
    from kovqa_core.distributed.rank_info import RankInfo
    from kovqa_core.settings.run import read_run
    from kovqa_core.train.loop import run_training

    run_training(read_run(folder / "run.yaml"), RankInfo(0, 0, 1), torch.device("cpu"), lambda: False)


def _train(folder: Path, kill_at: int, scratch: Path) -> None:
    """In the fork: train, and leave without taking the server's Python down."""
    handle = os.open(scratch / "text", os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    code = 1
    try:
        count_operations(Started((), "", kill_at=kill_at, inside=str(folder)), scratch)
        _run_training(folder)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
