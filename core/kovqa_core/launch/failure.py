"""Why a launch ended badly: the first failing worker's own error, or what its launcher saw."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from kovqa_core.errors import ERROR_CLASSES, KovqaError, MachineError, WorkerError
from kovqa_core.launch.launchers.protocol import LaunchPlan
from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.runs.folder import ERROR_FILE, RunError, follow_pointer, read_error

# What a worker's python prints when it does not get as far as writing its own error.
_START_ERROR_PATTERNS = (
    r"((?:ModuleNotFoundError|ImportError): [^)\n]*)",
    r"^(kovqa: the engine in .*)",
    r"^(?:slurmstepd: error: )?(.*(?:command not found|execve\(\): .*))$",
)
_SLURM_ERROR_PATTERN = r"^(?:srun|sbatch): (?:error|fatal): (.*)"
# A negative exit code is the number of the signal; srun writes what it means instead.
_TORCHRUN_KILLED = r"Root Cause.*?rank\s*:\s*(?P<rank>\d+).*?exitcode\s*:\s*-(?P<number>\d+)"
_SRUN_KILLED = (
    r"^srun: error: \S+ tasks? (?P<rank>[\d,-]+): (?P<reason>Killed|Out Of Memory|Segmentation fault|Aborted)"
)
_MAYBE_OUT_OF_MEMORY = ("SIGKILL", "Killed", "Out Of Memory")  # the kernel's OOM killer sends SIGKILL


def launch_failure(plan: LaunchPlan, log: Path, log_start: int = 0) -> KovqaError:
    """The error a failed launch ends with.

    Args:
        plan: what was started.
        log: what the launcher printed.
        log_start: where in the log this launch began, in bytes.
    """
    resume_hint = plan.resume_hint or _resume_hint(plan.folder)
    error = read_error(plan.folder)
    if error is not None:
        return _worker_error(error, plan.folder / ERROR_FILE, resume_hint)
    with log.open("rb") as stream:
        # A resumed run appends to its log: what stands before is an earlier launch's.
        stream.seek(log_start)
        text = stream.read().decode("utf-8", "replace")
    return (
        _killed_failure(text, resume_hint)
        or _start_failure(text)
        or _rendezvous_failure(plan, text)
        or _allocation_failure(text)
        or _unexplained_failure(text, log, resume_hint)
    )


def _resume_hint(folder: Path) -> Message:
    last = follow_pointer(folder, "last")
    if last is None:
        return message(
            "launch.begin-anew.hint",
            "there is no checkpoint yet; begin anew at step 0: kovqa train --resume -o {folder}",
            folder=shell_quote(folder),
        )
    return message(
        "launch.resume.hint",
        "go on from the last checkpoint, {step}: kovqa train --resume -o {folder}",
        step=last.name,
        folder=shell_quote(folder),
    )


def _worker_error(error: RunError, file: Path, resume_hint: str) -> KovqaError:
    # Errors with a class say themselves what to do; any other is a fault, shown with its rank and place.
    if error.kind in ERROR_CLASSES:
        return ERROR_CLASSES[error.kind](error.message, error.detail)
    return WorkerError(
        message(
            "launch.rank-failed", "rank {rank} failed: {problem}", rank=error.rank, problem=error.message
        ),
        message("launch.rank-failed.hint", "details: {file}; {resume}", file=file, resume=resume_hint),
    )


def _start_failure(text: str) -> KovqaError | None:
    for pattern in _START_ERROR_PATTERNS:
        if match := re.search(pattern, text, re.MULTILINE):
            return WorkerError(
                message("launch.worker-not-started", "a worker could not start: {problem}", problem=match[1]),
                message(
                    "launch.worker-not-started.hint",
                    "its python needs kovqa and all it imports: see `python`, `setup` and `command_prefix` "
                    "of the profile",
                ),
            )
    return None


def _rendezvous_failure(plan: LaunchPlan, text: str) -> KovqaError | None:
    """What torchrun's rendezvous over several nodes ended with."""
    if not plan.rendezvous or "Rendezvous" not in text:
        return None
    place = describe_rendezvous(plan)
    if "RendezvousTimeoutError" in text:
        problem = message("launch.nodes-missing", "not all nodes came to {rendezvous}", rendezvous=place)
    elif "RendezvousConnectionError" in text:
        problem = message("launch.no-answer", "nobody answers at {rendezvous}", rendezvous=place)
    else:
        return None
    return MachineError(
        problem,
        message(
            "launch.nodes-missing.hint",
            "type the same command on every node, the first being the one that `rendezvous` of the profile names",
        ),
    )


def describe_rendezvous(plan: LaunchPlan) -> Message:
    """Where nodes meet, in words: address, port, interface."""
    host, _, port = plan.rendezvous.rpartition(":")
    interface = plan.env.get("GLOO_SOCKET_IFNAME")
    if interface:
        return message(
            "launch.rendezvous",
            "{host}, port {port}, interface {interface}",
            host=host,
            port=port,
            interface=interface,
        )
    return message(
        "launch.rendezvous-default-route",
        "{host}, port {port}, interface of the default route",
        host=host,
        port=port,
    )


def _allocation_failure(text: str) -> KovqaError | None:
    """What SLURM printed when it gave no allocation."""
    lines = re.findall(_SLURM_ERROR_PATTERN, text, re.MULTILINE)
    if not any(re.search("allocate|allocation|submission|submit|Unable to", line) for line in lines):
        return None
    return MachineError(
        message("launch.no-allocation", "SLURM: {problem}", problem="; ".join(dict.fromkeys(lines))),
        message("launch.no-allocation.hint", "see `slurm` in the profile, and sinfo"),
    )


def _killed_failure(text: str, resume_hint: str) -> KovqaError | None:
    match = re.search(_TORCHRUN_KILLED, text, re.DOTALL) or re.search(_SRUN_KILLED, text, re.MULTILINE)
    if match is None:
        return None
    fields = match.groupdict()
    reason = fields.get("reason") or signal.Signals(int(fields["number"])).name
    hint = resume_hint
    if reason in _MAYBE_OUT_OF_MEMORY:
        hint = message(
            "launch.killed.hint", "the machine may have run out of memory; {resume}", resume=resume_hint
        )
    return WorkerError(
        message("launch.killed", "rank {rank} was killed ({reason})", rank=fields["rank"], reason=reason),
        hint,
    )


def _unexplained_failure(text: str, log: Path, resume_hint: str) -> KovqaError:
    """The last line that has a word in it."""
    lines = (line.strip() for line in reversed(text.splitlines()))
    nothing = message("launch.no-message", "no message")
    last = next((line[:200] for line in lines if re.search(r"\w{2}", line)), nothing)
    return WorkerError(
        message("launch.unexplained", "the workers ended without a word ({last_line})", last_line=last),
        message("launch.unexplained.hint", "see {log}; {resume}", log=log, resume=resume_hint),
    )
