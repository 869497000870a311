"""Launch plan -> processes: the one effect. They are started, listened to, stopped, and their failure is reported."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

from kovqa_core.errors import KovqaError, MachineError
from kovqa_core.files import disk_errors
from kovqa_core.launch.failure import describe_rendezvous, launch_failure
from kovqa_core.launch.launchers.protocol import JOB_SCRIPT, LaunchPlan
from kovqa_core.launch.launchers.torchrun import STOP_TIMEOUT
from kovqa_core.launch.plan import WORKER_FILE
from kovqa_core.messages import message
from kovqa_core.messages.system_reasons import system_reason
from kovqa_core.runs.events import EVENTS_VARIABLE, WaitingEvent, WorkerEvent, parse_event
from kovqa_core.runs.folder import ERROR_FILE
from kovqa_core.runs.slurm_job import SlurmJob, write_slurm_job
from kovqa_core.settings.code_consent import TRUST_VARIABLE

_RENDEZVOUS_NOTICE_SECONDS = 30.0  # after which a node that still waits for others says so
_QUEUE_NOTICE_SECONDS = 5.0  # after which a job that waits in SLURM's queue is reported
_QUEUE_LOOKS = 60  # one a second from then on, until srun says that it waits
# Variables with these beginnings are another launcher's.
_FOREIGN_LAUNCHER = ("PET_", "TORCHELASTIC_", "TORCH_ELASTIC_", "PYTHON_EXEC")
_NOT_INHERITED = (*_FOREIGN_LAUNCHER, TRUST_VARIABLE)  # a variable that lingers in a shell is no flag
# TERM first: srun takes its job along only then. torchrun's workers end when it is gone.
_GUARD_SCRIPT = """
read -r _
kill -s TERM -- "-$1"
tries=0
while [ $tries -lt 4 ] && kill -s 0 -- "-$1"; do sleep 1; tries=$((tries + 1)); done
kill -s KILL -- "-$1"
"""

OnEvent = Callable[[WorkerEvent], None]


def start_processes(plan: LaunchPlan, on_event: OnEvent) -> None:
    """Start the processes of a plan and wait for them.

    SIGTERM and SIGHUP end it after a checkpoint; SIGUSR1 (a queue's warning) asks the workers for one.

    Args:
        plan: what to start.
        on_event: called with every event of the first worker, and with what is waited for.

    Raises:
        KovqaError: what the first failing worker raised, as the same kind.
        KeyboardInterrupt: Ctrl-C; the workers wrote a checkpoint before.
    """
    logs = plan.folder / "logs"
    # Several nodes share the run folder: each launcher has a log of its own.
    name = f"launcher-{socket.gethostname()}.log" if plan.rendezvous else "launcher.log"
    with disk_errors(logs):
        logs.mkdir(parents=True, exist_ok=True)
        (plan.folder / ERROR_FILE).unlink(missing_ok=True)
        log = (logs / name).open("ab")
    # The log is appended to: a failure is looked for in what this launch wrote.
    log_start = log.tell()
    process = _spawn_launcher(plan, log)
    with (
        log,
        _end_if_killed(process),
        _forward_signals(process, plan.stop_signal),
        _report_waiting(plan, logs / name, log_start, on_event),
    ):
        try:
            code = _forward_events(process, on_event)
        except BaseException:
            _stop_workers(process, plan.stop_signal)
            raise
    if code or (plan.folder / ERROR_FILE).is_file():  # workers that were asked to stop end with 0
        raise launch_failure(plan, logs / name, log_start)


def _spawn_launcher(plan: LaunchPlan, log: IO[bytes]) -> subprocess.Popen[str]:
    """In a session of its own: Ctrl-C reaches this process alone, which then asks the workers to stop."""
    try:
        return subprocess.Popen(
            plan.argv,
            env={**launch_environment(plan), EVENTS_VARIABLE: "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise MachineError(
            message(
                "launch.cannot-start",
                "{command} cannot be started: {problem}",
                command=plan.argv[0],
                problem=system_reason(error),
            ),
            message("launch.cannot-start.hint", "see `python` and `command_prefix` of the profile"),
        ) from None


def launch_environment(plan: LaunchPlan) -> dict[str, str]:
    """This process's variables and the plan's, without those by which another launcher would change the launch.

    torchrun reads every option from PET_OPTION (Kubeflow sets PET_NNODES) and the workers' Python from
    PYTHON_EXEC; torch's rendezvous waits for the store of an agent that TORCHELASTIC_USE_AGENT_STORE promises
    (docs/sources/launching.md, R27).
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    return {**kept, **plan.env}


@contextmanager
def _end_if_killed(process: subprocess.Popen[str]) -> Iterator[None]:
    """While it lasts, the launcher ends with this process, even where that is killed and can end nothing.

    A shell waits at a pipe whose other end this process alone has: the system closes it, whatever ends us.
    Workers that have nothing to print would notice only when torchrun is gone. In a session of its own, for a
    job-control `kill -9 %1` reaches the whole group; with no variables, folder or output of ours to hold open.
    """
    try:
        guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD_SCRIPT, "kovqa-guard", str(process.pid)],
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:  # no more processes allowed: nothing may go on unguarded
        _end_launcher(process)
        raise
    try:
        yield
    finally:
        guard.kill()  # before its pipe closes: the launcher has ended, and its number may be another's soon
        guard.communicate()


def _forward_events(process: subprocess.Popen[str], on_event: OnEvent) -> int:
    """Pass the events on until the processes have ended; their exit code."""
    assert process.stdout is not None
    for line in process.stdout:
        event = parse_event(line)
        if event is not None:
            on_event(event)
    return process.wait()


@contextmanager
def _forward_signals(process: subprocess.Popen[str], stop_signal: signal.Signals) -> Iterator[None]:
    """While it lasts, signals to this process are meant for the workers."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def ask_workers(number: int, frame: FrameType | None) -> None:
        process.send_signal(stop_signal)

    # SystemExit unwinds through `start_processes`, which then stops the workers and waits for them.
    handlers = {signal.SIGTERM: leave, signal.SIGUSR1: ask_workers}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup wants it
        handlers[signal.SIGHUP] = leave
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _report_waiting(plan: LaunchPlan, log: Path, log_start: int, on_event: OnEvent) -> Iterator[None]:
    """When nothing has begun after a while, say what is waited for: other nodes, or SLURM's queue.

    Args:
        plan: what was started.
        log: what the launcher writes.
        log_start: its size before the launcher was started, which may have written something by now.
        on_event: called with what is waited for.
    """
    ended = threading.Event()
    seconds = _RENDEZVOUS_NOTICE_SECONDS if plan.rendezvous else _QUEUE_NOTICE_SECONDS

    def report() -> None:
        if ended.wait(seconds):
            return
        if plan.rendezvous and not _has_local_worker(plan.folder):
            text = message(
                "launch.waiting-for-nodes",
                "waiting for the other nodes at {rendezvous}: type the same command there",
                rendezvous=describe_rendezvous(plan),
            )
            on_event(WaitingEvent(text))
        # More than one look: on a busy machine srun itself may not have answered yet.
        for _ in range(_QUEUE_LOOKS):
            if reason := _queue_messages(log.read_bytes()[log_start:].decode("utf-8", "replace")):
                on_event(WaitingEvent(message("launch.waiting-in-queue", "SLURM: {reason}", reason=reason)))
                return
            if ended.wait(1):
                return

    threading.Thread(target=report, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _queue_messages(text: str) -> str:
    """What srun says while its job has no resources; "" once it has them."""
    lines = re.findall(r"^srun: (.*)", text, re.MULTILINE)
    if any("has been allocated" in line for line in lines):
        return ""
    return "; ".join(line for line in lines if "not available now" in line or "queued" in line)


def _has_local_worker(folder: Path) -> bool:
    """Does a worker of this run live on this machine? Its command line names worker.py and the run folder."""
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


def _stop_workers(process: subprocess.Popen[str], stop_signal: signal.Signals) -> None:
    """Ask for a checkpoint, wait for it; a second Ctrl-C waits no longer."""
    process.send_signal(stop_signal)
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


# -------------------------------------------------------------------------------------- queues


def submit_job(plan: LaunchPlan) -> str:
    """Put a batch script into its queue.

    Returns:
        The job's number.

    Raises:
        MachineError: the queue refuses it; in its own words.
    """
    with disk_errors(plan.folder):
        (plan.folder / "logs").mkdir(parents=True, exist_ok=True)  # SLURM writes there, and makes no folder
    job = run_queue_command(plan.argv, plan).splitlines()[-1].split(";")[0]  # number;cluster
    with suppress(KovqaError, OSError):  # the job is queued, whether or not its number can be written
        write_slurm_job(plan.folder, SlurmJob(job, f"kovqa-{plan.folder.name}"))
    return job


def ask_scheduler(plan: LaunchPlan) -> str:
    """Whether the scheduler would take the job, in its own words; "" where there is none to ask.

    Raises:
        MachineError: it would refuse it; in its own words.
    """
    if plan.script is None or not plan.test_only_argv:
        return run_queue_command(plan.test_only_argv, plan) if plan.test_only_argv else ""
    # A question leaves nothing in the run folder: the script that it is about lies elsewhere.
    with tempfile.NamedTemporaryFile("w", suffix=f"-{JOB_SCRIPT}", encoding="utf-8") as script:
        script.write(plan.script)
        script.flush()
        return run_queue_command([*plan.test_only_argv[:-1], script.name], plan)


def run_queue_command(argv: Sequence[str], plan: LaunchPlan) -> str:
    """Run a short command of SLURM's; what it says, on stdout or else on stderr.

    Raises:
        MachineError: it refuses; in its own words.
    """
    done = subprocess.run(
        argv, env=launch_environment(plan), capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise MachineError(
            message("launch.slurm-refuses", "SLURM: {problem}", problem=_slurm_message(done.stderr)),
            message("launch.slurm-refuses.hint", "see `slurm` in the profile, and sinfo"),
        )
    return done.stdout.strip() or _slurm_message(done.stderr)


def _slurm_message(stderr: str) -> str:
    """What SLURM says; not what a profile's own setup lines print."""
    lines = re.findall(r"^(?:sbatch|srun): (?:error: )?(.*)", stderr, re.MULTILINE)
    return "; ".join(dict.fromkeys(lines)) or stderr.strip()
