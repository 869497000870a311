"""Launch plan -> processes: the one effect. They are started, listened to, stopped, and their failure is told."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from kovqa_core.errors import MachineError
from kovqa_core.files import disk_errors
from kovqa_core.launch.failure import describe_rendezvous, launch_failure
from kovqa_core.launch.plan import STOP_TIMEOUT, WORKER_FILE, LaunchPlan
from kovqa_core.runs.events import EVENTS_VARIABLE
from kovqa_core.runs.folder import ERROR_FILE

_RENDEZVOUS_NOTICE_SECONDS = 30.0  # seconds after which a node that still waits for others says so
_QUEUE_NOTICE_SECONDS = 5.0  # and after which a job that SLURM lets wait is spoken of


def start_processes(launch: LaunchPlan, on_event: Callable[[Mapping[str, Any]], None]) -> None:
    """Start the processes of a plan and wait for them.

    SIGTERM and SIGHUP end it after a checkpoint; SIGUSR1 (a queue's warning) asks the workers for it.

    Args:
        launch: what to start.
        on_event: called with every event the first worker tells (see `train/log.py`).

    Raises:
        KovqaError: what the first failing worker raised, as the same kind.
        KeyboardInterrupt: Ctrl-C; the workers wrote a checkpoint before.
    """
    logs = launch.folder / "logs"
    name = f"launcher-{socket.gethostname()}.log" if launch.meeting else "launcher.log"
    with disk_errors(logs):
        logs.mkdir(parents=True, exist_ok=True)
        (launch.folder / ERROR_FILE).unlink(missing_ok=True)
        log = (logs / name).open("ab")
    began = log.tell()
    process = _spawn_launcher(launch, log)
    with log, _forward_signals(process, launch.stop), _report_waiting(launch, logs / name, on_event):
        try:
            code = _forward_events(process, on_event)
        except BaseException:
            _stop_workers(process, launch.stop)
            raise
    if code or (launch.folder / ERROR_FILE).is_file():  # workers that were asked to stop end with 0
        raise launch_failure(launch, logs / name, began)


def _spawn_launcher(launch: LaunchPlan, log: IO[bytes]) -> subprocess.Popen[str]:
    """In a session of its own: Ctrl-C reaches this process alone, which then asks the workers to stop."""
    try:
        return subprocess.Popen(
            launch.argv,
            env={**os.environ, **launch.env, EVENTS_VARIABLE: "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        hint = "see `python` and `command_prefix` of the profile"
        raise MachineError(f"{launch.argv[0]} cannot be started: {error.strerror}", hint) from None


def _forward_events(process: subprocess.Popen[str], on_event: Callable[[Mapping[str, Any]], None]) -> int:
    """Pass the events on until the processes have ended; their exit code."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith('{"'):
            on_event(json.loads(line))
    return process.wait()


@contextmanager
def _forward_signals(process: subprocess.Popen[str], stop: signal.Signals) -> Iterator[None]:
    """While it lasts, signals to this process are meant for the workers."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    handlers: dict[int, Any] = {signal.SIGTERM: leave, signal.SIGUSR1: lambda *_: process.send_signal(stop)}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # else nohup wants it to be ignored
        handlers[signal.SIGHUP] = leave
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _report_waiting(
    launch: LaunchPlan, log: Path, on_event: Callable[[Mapping[str, Any]], None]
) -> Iterator[None]:
    """When nothing has begun after a while, say what is waited for: other nodes, or SLURM's queue."""
    began = log.stat().st_size

    def say() -> None:
        if launch.meeting and not _has_local_worker(launch.folder):
            text = (
                f"waiting for the other nodes at {describe_rendezvous(launch)}: type the same command there"
            )
            on_event({"kind": "waiting", "note": text})
        if words := _queue_messages(log.read_bytes()[began:].decode("utf-8", "replace")):
            on_event({"kind": "waiting", "note": f"SLURM: {words}"})

    timer = threading.Timer(_RENDEZVOUS_NOTICE_SECONDS if launch.meeting else _QUEUE_NOTICE_SECONDS, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _queue_messages(text: str) -> str:
    """What srun says while its job is not given anything."""
    lines = re.findall(r"^srun: (.*)", text, re.MULTILINE)
    waits = [line for line in lines if "not available now" in line or "queued" in line]
    return "" if any("has been allocated" in line for line in lines) else "; ".join(waits)


def _has_local_worker(folder: Path) -> bool:
    """Does a worker of this run live on this machine?"""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue  # gone meanwhile
        if (
            str(WORKER_FILE) in words
            and "torch.distributed.run" not in words
            and any(word.startswith(str(folder)) for word in words)
        ):
            return True
    return False


def _stop_workers(process: subprocess.Popen[str], stop: signal.Signals) -> None:
    """Ask for a checkpoint, wait for it; a second Ctrl-C waits no longer."""
    process.send_signal(stop)
    try:
        process.wait(STOP_TIMEOUT + 10)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _end_launcher(process)


def _end_launcher(process: subprocess.Popen[str]) -> None:
    """End what has not ended: srun takes its job along when it is terminated, not when it is killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                pass


def submit_job(launch: LaunchPlan) -> str:
    """Hand a batch script to SLURM's queue.

    Returns:
        The job's number.

    Raises:
        MachineError: SLURM takes it not; in its own words.
    """
    with disk_errors(launch.folder):
        (launch.folder / "logs").mkdir(parents=True, exist_ok=True)  # SLURM writes there, and makes no folder
    return run_slurm_command(launch).splitlines()[-1].split(";")[0]  # number;cluster


def run_slurm_command(launch: LaunchPlan) -> str:
    """Run a short command of SLURM's; what it says, on stdout or else on stderr.

    Raises:
        MachineError: it refuses; in its own words.
    """
    done = subprocess.run(
        launch.argv, env={**os.environ, **launch.env}, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        raise MachineError(f"SLURM: {_slurm_message(done.stderr)}", "see `slurm` in the profile, and sinfo")
    return done.stdout.strip() or _slurm_message(done.stderr)


def _slurm_message(stderr: str) -> str:
    """What SLURM says; not what a profile's own lines say."""
    said = re.findall(r"^(?:sbatch|srun): (?:error: )?(.*)", stderr, re.MULTILINE)
    return "; ".join(dict.fromkeys(said)) or stderr.strip()
