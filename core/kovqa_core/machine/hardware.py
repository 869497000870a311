"""What this machine has, found without torch: GPUs, memory; and the profile that fits it.

psutil is not used: `available_memory` reads the one line of /proc/meminfo that psutil reads, and needs a
container's limit besides, which psutil does not know; cores are `sched_getaffinity`'s in the standard
library. It would be one more compiled dependency for five lines.
"""

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
_QUERY_SECONDS = 20  # nvidia-smi takes seconds where the driver is not kept loaded
_MEMINFO_FILE = Path("/proc/meminfo")
_CGROUP_FOLDER = Path("/sys/fs/cgroup")  # of version 2, inside a container: its own


@dataclass(frozen=True)
class GpuInfo:
    """One visible GPU: NVIDIA's, or Apple's."""

    name: str
    memory_gb: int


def visible_gpus() -> list[GpuInfo]:
    """The GPUs a process started here would see (CUDA_VISIBLE_DEVICES respected)."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return [GpuInfo(APPLE_GPU, system_memory_gb())]  # shares the computer's memory
    output = _query_nvidia_smi("name,memory.total")
    rows = [line.rsplit(",", 1) for line in output.splitlines() if "," in line]
    gpus = [GpuInfo(name.strip(), round(float(memory) / 1024)) for name, memory in rows]  # MiB
    # nvidia-smi does not know this variable, CUDA does. Its entries may be numbers, UUIDs or MIG slices:
    # only their count is used, as the GPUs of one machine are of one kind.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return gpus
    devices = [device for device in visible.split(",") if device.strip() and device.strip() != "-1"]
    return gpus[: len(devices)]


def nvidia_driver_version() -> str | None:
    """Version of the NVIDIA driver; None without one."""
    versions = _query_nvidia_smi("driver_version").split()  # one line a GPU
    return versions[0] if versions else None


def _query_nvidia_smi(columns: str) -> str:
    """What nvidia-smi says of each GPU, one line each; "" without it, or where it fails or hangs."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    query = [tool, f"--query-gpu={columns}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(
            query, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def system_memory_gb() -> int:
    """Memory of this machine, in GiB."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def available_memory() -> int | None:
    """Bytes that new processes may take, as Linux estimates it; None where it does not say."""
    try:
        lines = _MEMINFO_FILE.read_text("utf-8").splitlines()
        # In KiB, whatever the file calls it.
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    try:
        limit = int((_CGROUP_FOLDER / "memory.max").read_text())  # "max" without a limit: ValueError
        used = int((_CGROUP_FOLDER / "memory.current").read_text())
    except (OSError, ValueError):
        return available
    return min(available, limit - used)


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
        and profile.processes_per_node <= count and profile.gpu_memory_gb <= memory_gb + 1  # drivers keep some
    ]  # fmt: skip

    def nearness(profile: Profile) -> tuple[bool, int, int]:
        same = profile.gpu in gpus[0].name and profile.processes_per_node == count
        return same, profile.processes_per_node, profile.gpu_memory_gb

    return max(fitting, key=nearness).name if fitting else "cpu"
