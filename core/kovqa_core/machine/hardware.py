"""What this machine has, asked without torch: GPUs, cores; and the profile that fits it."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.errors import MachineError
from kovqa_core.paths import settings_files
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import load_profile

APPLE_GPU = "Apple"


@dataclass(frozen=True)
class GpuInfo:
    """One GPU that can be seen: NVIDIA's, or Apple's."""

    name: str
    memory_gb: int


def visible_gpus() -> list[GpuInfo]:
    """The GPUs a process started here would see (CUDA_VISIBLE_DEVICES respected)."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return [GpuInfo(APPLE_GPU, system_memory_gb())]  # shares the computer's memory
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rsplit(",", 1) for line in output.splitlines() if "," in line]
    found = [GpuInfo(name.strip(), round(float(memory) / 1024)) for name, memory in rows]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    chosen = [part for part in visible.split(",") if part.strip() and part.strip() != "-1"]
    return found[: len(chosen)]


def nvidia_driver_version() -> str | None:
    """Version of the NVIDIA driver, if there is one."""
    tool = shutil.which("nvidia-smi")
    query = [tool or "", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return lines[0] if lines else None


def system_memory_gb() -> int:
    """Memory of this machine, in GiB."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def nearest_profile(found: list[GpuInfo]) -> str:
    """Name of the profile nearest to a machine with these GPUs: of those for one machine alone.

    The same GPU and count if there is one, else the largest profile that asks for no more
    GPUs and no more memory; `cpu` without a GPU.
    """
    if not found:
        return "cpu"
    count, memory = len(found), min(gpu.memory_gb for gpu in found)
    loaded = [load_profile(name) for name in settings_files("profiles")]
    fitting = [
        p for p in loaded
        if p.launcher == "torchrun" and p.nodes == 1 and p.gpu
        and (p.device == "mps") == (found[0].name == APPLE_GPU)
        and p.processes_per_node <= count and p.gpu_memory_gb <= memory + 1
    ]  # fmt: skip

    def nearness(profile: Profile) -> tuple[bool, int, int]:
        same = profile.gpu in found[0].name and profile.processes_per_node == count
        return same, profile.processes_per_node, profile.gpu_memory_gb

    return max(fitting, key=nearness).name if fitting else "cpu"


def check_machine(profile: Profile) -> None:
    """See that this machine has what a profile names.

    Raises:
        MachineError: no SLURM, too few GPUs (names the profile that fits and the dry run), a
            rendezvous whose host or interface is not known here.
    """
    if profile.launcher != "torchrun":
        _check_slurm(profile)
        return
    if profile.nodes > 1:
        _check_network(profile)
    if profile.device == "cpu":
        return
    found = visible_gpus()
    right = [gpu for gpu in found if (gpu.name == APPLE_GPU) == (profile.device == "mps")]
    if len(right) < profile.processes_per_node:
        what = "an Apple GPU" if profile.device == "mps" else f"{profile.processes_per_node} GPUs"
        raise MachineError(
            f"profile {profile.name} wants {what}, this machine shows {len(right)}",
            f"use --profile {nearest_profile(found)}, or see the plan with --dry-run",
        )


def _check_slurm(profile: Profile) -> None:
    missing = [tool for tool in (profile.launcher, "scontrol") if shutil.which(tool) is None]
    if missing:
        raise MachineError(
            f"profile {profile.name} starts with {profile.launcher}, and there is no {missing[0]} here",
            f"log in where SLURM is, or use --profile {nearest_profile(visible_gpus())}",
        )


def _check_network(profile: Profile) -> None:
    host, _, port = profile.rendezvous.rpartition(":")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except OSError as error:
        raise MachineError(
            f"rendezvous {profile.rendezvous}: host {host} is not known here ({error.strerror})",
            "name the first node as all nodes know it: --set profile.rendezvous=HOST:PORT",
        ) from None
    known = [name for _, name in socket.if_nameindex()]
    if profile.network_interface and profile.network_interface not in known:
        raise MachineError(
            f"no network interface {profile.network_interface} here; there are {', '.join(known)}",
            "name the one between the nodes: --set profile.network_interface=…",
        )


def available_memory() -> int | None:
    """Bytes new processes here may take, as Linux says it; None: it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    try:  # a container's own limit
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free, limit)
