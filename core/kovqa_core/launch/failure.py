"""Why a launch ended badly: the first failing worker's own error, or what its launcher saw."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path

from kovqa_core.errors import ERROR_CLASSES, KovqaError, MachineError, WorkerError
from kovqa_core.files import read_json
from kovqa_core.launch.plan import LaunchPlan
from kovqa_core.runs.folder import ERROR_FILE

# What says that a worker's python never got as far as to tell its own error.
_START_ERROR_PATTERNS = (
    r"((?:ModuleNotFoundError|ImportError): [^)\n]*)",
    r"^(kovqa: the engine in .*)",
    r"^(?:slurmstepd: error: )?(.*(?:command not found|execve\(\): .*))$",
)
_SLURM_ERROR_PATTERN = r"^(?:srun|sbatch): (?:error|fatal): (.*)"
_TORCHRUN_KILLED = r"Root Cause.*?rank\s*:\s*(?P<rank>\d+).*?exitcode\s*:\s*-(?P<number>\d+)"
_SRUN_KILLED = (
    r"^srun: error: \S+ tasks? (?P<rank>[\d,-]+): (?P<words>Killed|Out Of Memory|Segmentation fault|Aborted)"
)


def launch_failure(launch: LaunchPlan, log: Path, began: int = 0) -> KovqaError:
    """The error a failed launch ends with.

    Args:
        launch: what was started.
        log: what the launcher said.
        began: where in the log this launch began, in bytes.
    """
    again = (
        launch.again
        or f"go on from the last checkpoint: kovqa train --resume -o {shlex.quote(str(launch.folder))}"
    )
    if (launch.folder / ERROR_FILE).is_file():
        return _worker_error(launch.folder / ERROR_FILE, again)
    with log.open("rb") as stream:
        stream.seek(began)
        text = stream.read().decode("utf-8", "replace")
    return (
        _killed_failure(text, again)
        or _start_failure(text)
        or _rendezvous_failure(launch, text)
        or _allocation_failure(text)
        or _unexplained_failure(text, log, again)
    )


def _worker_error(path: Path, again: str) -> KovqaError:
    error = read_json(path)
    if error["kind"] in ERROR_CLASSES:
        return ERROR_CLASSES[error["kind"]](error["message"], error["detail"])
    return WorkerError(f"rank {error['rank']} failed: {error['message']}", f"details: {path}; {again}")


def _start_failure(text: str) -> KovqaError | None:
    for pattern in _START_ERROR_PATTERNS:
        if found := re.search(pattern, text, re.MULTILINE):
            return WorkerError(
                f"a worker could not start: {found[1]}",
                "its python needs kovqa and all it imports: see `python`, `setup` and `command_prefix` of the profile",
            )
    return None


def _rendezvous_failure(launch: LaunchPlan, text: str) -> KovqaError | None:
    if not launch.meeting or "Rendezvous" not in text:
        return None
    if "RendezvousTimeoutError" in text:
        what = f"not all nodes came to {describe_rendezvous(launch)}"
    elif "RendezvousConnectionError" in text:
        what = f"nobody answers at {describe_rendezvous(launch)}"
    else:
        return None
    return MachineError(
        what,
        "type the same command on every node, the first being the one that `rendezvous` of the profile names",
    )


def describe_rendezvous(launch: LaunchPlan) -> str:
    """Where nodes meet, in words: address, port, interface."""
    host, _, port = launch.meeting.rpartition(":")
    interface = launch.env.get("GLOO_SOCKET_IFNAME") or "of the default route"
    return f"{host}, port {port}, interface {interface}"


def _allocation_failure(text: str) -> KovqaError | None:
    """What SLURM said when it gave no allocation."""
    lines = re.findall(_SLURM_ERROR_PATTERN, text, re.MULTILINE)
    refused = [line for line in lines if re.search("allocate|allocation|submission|submit|Unable to", line)]
    if not refused:
        return None
    return MachineError(f"SLURM: {'; '.join(dict.fromkeys(lines))}", "see `slurm` in the profile, and sinfo")


def _killed_failure(text: str, again: str) -> KovqaError | None:
    found = re.search(_TORCHRUN_KILLED, text, re.DOTALL) or re.search(_SRUN_KILLED, text, re.MULTILINE)
    if found is None:
        return None
    how = found.groupdict()
    name = how.get("words") or signal.Signals(int(how["number"])).name
    memory = (
        "the machine may have run out of memory; " if name in ("SIGKILL", "Killed", "Out Of Memory") else ""
    )
    return WorkerError(f"rank {how['rank']} was killed ({name})", memory + again)


def _unexplained_failure(text: str, log: Path, again: str) -> KovqaError:
    """The last line that says something."""
    lines = (line.strip() for line in reversed(text.splitlines()))
    last = next((line for line in lines if re.search(r"\w{2}", line)), "no message")
    return WorkerError(f"the workers ended without a word ({last[:200]})", f"see {log}; {again}")
