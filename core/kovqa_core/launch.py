"""Run -> launch plan (pure), launch plan -> processes (the one effect)."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovqa_core.errors import KINDS, KovqaError, WorkerError
from kovqa_core.files import disk_errors, read_json
from kovqa_core.runs import ERROR
from kovqa_core.settings.run import FILE, Run

WORKER = Path(__file__).resolve().with_name("worker.py")
GRACE = 40.0  # seconds a stopped run has to write its checkpoint


@dataclass(frozen=True)
class LaunchPlan:
    """A command as plain data."""

    argv: list[str]
    env: dict[str, str]
    folder: Path

    def shell(self) -> str:
        """The command, to be pasted into a shell."""
        variables = [f"{key}={shlex.quote(value)}" for key, value in self.env.items()]
        return " ".join([*variables, *map(shlex.quote, self.argv)])


def plan(run: Run, python: str, cores: int) -> LaunchPlan:
    """The launch of a run: torchrun on this machine.

    Args:
        run: what to start.
        python: the interpreter of the workers.
        cores: CPU cores of this machine, shared by the processes.
    """
    profile = run.profile
    threads = profile.threads or max(1, cores // profile.processes_per_node)
    env = {
        "PYTHONSAFEPATH": "1",  # reaches the workers; -P alone would not
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        **profile.env,
    }
    argv = [
        python, "-P", "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={profile.processes_per_node}", str(WORKER), str(run.folder / FILE),
    ]  # fmt: skip
    return LaunchPlan(argv, env, run.folder)


def start(plan: LaunchPlan, on_event: Callable[[Mapping[str, Any]], None]) -> None:
    """Start the processes of a plan and wait for them.

    Args:
        plan: what to start.
        on_event: called with every event the first worker tells (see `train/log.py`).

    Raises:
        KovqaError: what the first failing worker raised, as the same kind.
        KeyboardInterrupt: Ctrl-C; the workers wrote a checkpoint before.
    """
    logs = plan.folder / "logs"
    with disk_errors(logs):
        logs.mkdir(parents=True, exist_ok=True)
        (plan.folder / ERROR).unlink(missing_ok=True)
        log = (logs / "launcher.log").open("ab")
    began = log.tell()
    env = {**os.environ, **plan.env, "KOVQA_EVENTS": "1"}
    # In a session of its own: Ctrl-C reaches this process alone, which then asks the workers to stop.
    process = subprocess.Popen(
        plan.argv,
        env=env,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                on_event(json.loads(line))
        code = process.wait()
    except BaseException:
        _stop(process)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        log.close()
    if code:
        raise failure(plan.folder, logs / "launcher.log", began)


def _terminated(*_: object) -> None:
    raise SystemExit(143)


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask for a checkpoint, wait for it; a second Ctrl-C waits no longer."""
    process.send_signal(signal.SIGTERM)
    end = time.monotonic() + GRACE
    try:
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def failure(folder: Path, log: Path, began: int = 0) -> KovqaError:
    """The error a failed run ends with: the first failing worker's own, or what torchrun saw."""
    again = f"go on from the last checkpoint: kovqa train --resume -o {shlex.quote(str(folder))}"
    if (folder / ERROR).is_file():
        error = read_json(folder / ERROR)
        if error["kind"] in KINDS:
            return KINDS[error["kind"]](error["message"], error["detail"])
        detail = f"details: {folder / ERROR}; {again}"
        return WorkerError(f"rank {error['rank']} failed: {error['message']}", detail)
    with log.open(encoding="utf-8", errors="replace") as stream:
        stream.seek(began)
        text = stream.read()
    cause = re.search(r"Root Cause.*?rank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+)", text, re.DOTALL)
    if cause and int(cause[2]) < 0:
        name = signal.Signals(-int(cause[2])).name
        hint = "the machine may have run out of memory; " if name == "SIGKILL" else ""
        return WorkerError(f"rank {cause[1]} was killed ({name})", hint + again)
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")
    return WorkerError(f"the workers ended without a word ({last[:200]})", f"see {log}; {again}")
