"""What this machine has, found without torch: GPUs, memory; and the profile that fits it.

psutil is not used: `available_memory` reads the one line of /proc/meminfo that psutil reads, and needs a
container's limit besides, which psutil does not know; cores are `sched_getaffinity`'s in the standard
library. It would be one more compiled dependency for five lines.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovqa_core import cgroup
from kovqa_core.machine.nvidia_smi import (
    DEVICE_ORDER_VARIABLE,
    VISIBLE_DEVICES_VARIABLE,
    nvidia_report,
)
from kovqa_core.machine.visible_devices import MIG_MARK, GpuInfo, visible_cards
from kovqa_core.messages import Message, message
from kovqa_core.settings.profile import Profile

APPLE_GPU = "Apple"
MIN_GPU_MEMORY_GB = 6  # the weights, gradients and moments of a base model alone are 3.5 GB
OLDEST_CAPABILITY = (5, 0)  # the oldest that any of today's torch builds runs on
_MEMINFO_FILE = Path("/proc/meminfo")


@dataclass(frozen=True)
class FoundGpus:
    """The GPUs that a process started here would see, and what is wrong with them or their number."""

    gpus: tuple[GpuInfo, ...] = ()
    problems: tuple[Message, ...] = ()


def find_gpus() -> FoundGpus:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES leaves, and what a person should know of them."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return FoundGpus((GpuInfo(APPLE_GPU, system_memory_gb()),))  # shares the computer's memory
    visible = os.environ.get(VISIBLE_DEVICES_VARIABLE)
    if visible is not None and visible.strip() in ("", "-1"):
        return FoundGpus()  # hidden on purpose: what nvidia-smi says does not matter
    report = nvidia_report()
    gpus, problem = visible_cards(report.cards, visible, os.environ.get(DEVICE_ORDER_VARIABLE))
    if not report.cards:
        problem = None  # no number is there where there is no GPU
    unknown = next((_memory_unknown(gpu) for gpu in gpus if gpu.memory_gb is None), None)
    return FoundGpus(tuple(gpus), tuple(each for each in (report.problem, problem, unknown) if each))


def visible_gpus() -> list[GpuInfo]:
    """The GPUs a process started here would see (CUDA_VISIBLE_DEVICES respected)."""
    return list(find_gpus().gpus)


def _memory_unknown(gpu: GpuInfo) -> Message:
    return message(
        "machine.gpu-memory-unknown",
        "nvidia-smi does not say how much memory {gpu} has: a careful profile is chosen (choose your own with "
        "--profile; --micro-batch N says how many examples it holds)",
        gpu=gpu.name,
    )


def nvidia_driver_version() -> str | None:
    """Version of the NVIDIA driver; None without one."""
    return nvidia_report().driver


def system_memory_gb() -> int:
    """Memory of this machine, or what a container or a SLURM job may use of it, in GiB."""
    limit = cgroup.memory_limit()
    installed = _installed_memory()
    return round((installed if limit is None else min(installed, limit)) / 2**30)


def _installed_memory() -> int:
    """Bytes of memory in this machine."""
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import ctypes  # Windows

    # MEMORYSTATUSEX: its own size and the load in 32 bits each, then seven numbers of 64 bits, ullTotalPhys first.
    status = (ctypes.c_ulonglong * 8)(64)
    kernel32: Any = getattr(ctypes, "WinDLL")("kernel32")  # noqa: B009 - Windows alone has it
    kernel32.GlobalMemoryStatusEx(status)
    return status[1]


def available_memory() -> int | None:
    """Bytes that new processes may take, as Linux estimates it; None where it does not say."""
    try:
        lines = _MEMINFO_FILE.read_text("utf-8").splitlines()
        # In KiB, whatever the file calls it.
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    free = cgroup.free_memory()
    return available if free is None else min(available, free)


def smallest_gpu_gb(gpus: Sequence[GpuInfo]) -> int | None:
    """GB of the smallest of some GPUs; None: there is none, or one whose memory nobody knows (it could be it)."""
    return min((gpu.memory_gb or 0 for gpu in gpus), default=0) or None


def lowest_capability(gpus: Sequence[GpuInfo]) -> tuple[int, int] | None:
    """The lowest compute capability of some GPUs; None: there is none, or one of which nobody knows it."""
    known = [gpu.compute_capability for gpu in gpus if gpu.compute_capability]
    return min(known) if known and len(known) == len(gpus) else None


def is_too_small(gpus: Sequence[GpuInfo]) -> bool:
    """Has one of them too little memory, or is too old, for models to be trained on it?"""
    memory_gb, capability = smallest_gpu_gb(gpus), lowest_capability(gpus)
    too_small = memory_gb is not None and memory_gb < MIN_GPU_MEMORY_GB
    return too_small or (capability is not None and capability < OLDEST_CAPABILITY)


def nearest_profile(gpus: Sequence[GpuInfo], profiles: Iterable[Profile]) -> str:
    """Name of the profile nearest to a machine with these GPUs.

    One for just these GPUs, their number and their memory if there is one, else the one that is filled in from
    them (`from_machine`); `cpu` without a GPU that can train.

    Args:
        gpus: of the machine.
        profiles: those to choose from: for one machine alone.
    """
    if not gpus or (gpus[0].name != APPLE_GPU and is_too_small(gpus)):
        return "cpu"
    family = [profile for profile in profiles if profile.from_machine or _is_for(profile, gpus)]
    return min(family, key=lambda profile: profile.from_machine).name if family else "cpu"


def _is_for(profile: Profile, gpus: Sequence[GpuInfo]) -> bool:
    """Is this a profile for just these GPUs? Drivers keep some of the memory that a profile states."""
    if not profile.gpu or profile.processes_per_node != len(gpus):
        return False
    if profile.device == "mps" or gpus[0].name == APPLE_GPU:
        return profile.gpu == gpus[0].name
    memory_gb = smallest_gpu_gb(gpus)
    has_memory = memory_gb is not None and abs(profile.gpu_memory_gb - memory_gb) <= 1
    return has_memory and all(profile.gpu in gpu.name and MIG_MARK not in gpu.name.split() for gpu in gpus)
