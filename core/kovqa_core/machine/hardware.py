"""What this machine has, asked without torch: GPUs, cores; and the profile that fits it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.settings.profile import Profile

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


def nearest_profile(gpus: Sequence[GpuInfo], profiles: Iterable[Profile]) -> str:
    """Name of the profile nearest to a machine with these GPUs.

    The same GPU and count if there is one, else the largest profile that asks for no more
    GPUs and no more memory; `cpu` without a GPU.

    Args:
        gpus: of the machine.
        profiles: those to choose from: for one machine alone.
    """
    if not gpus:
        return "cpu"
    count, memory_gb, is_apple = len(gpus), min(gpu.memory_gb for gpu in gpus), gpus[0].name == APPLE_GPU
    fitting = [
        profile for profile in profiles
        if profile.gpu and (profile.device == "mps") == is_apple
        and profile.processes_per_node <= count and profile.gpu_memory_gb <= memory_gb + 1
    ]  # fmt: skip

    def nearness(profile: Profile) -> tuple[bool, int, int]:
        same = profile.gpu in gpus[0].name and profile.processes_per_node == count
        return same, profile.processes_per_node, profile.gpu_memory_gb

    return max(fitting, key=nearness).name if fitting else "cpu"


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
