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

from kovqa_core import cgroup
from kovqa_core.machine.nvidia_smi import nvidia_report
from kovqa_core.machine.visible_devices import (
    DEVICE_ORDER_VARIABLE,
    VISIBLE_DEVICES_VARIABLE,
    GpuInfo,
    visible_cards,
)
from kovqa_core.messages import Message, message
from kovqa_core.settings.profile import Profile

APPLE_GPU = "Apple"
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
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return round((installed if limit is None else min(installed, limit)) / 2**30)


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
    count, is_apple = len(gpus), gpus[0].name == APPLE_GPU
    known = [gpu.memory_gb for gpu in gpus if gpu.memory_gb is not None]
    memory_gb = min(known) if len(known) == count else None
    fitting = [
        profile for profile in profiles
        if profile.gpu and (profile.device == "mps") == is_apple
        and profile.processes_per_node <= count
        and (memory_gb is None or profile.gpu_memory_gb <= memory_gb + 1)  # drivers keep some
    ]  # fmt: skip

    def nearness(profile: Profile) -> tuple[bool, int, int]:
        if memory_gb is None:  # the one that asks for least: a GPU is there, and shall be used
            return False, profile.processes_per_node, -profile.gpu_memory_gb
        same = profile.gpu in gpus[0].name and profile.processes_per_node == count
        return same, profile.processes_per_node, profile.gpu_memory_gb

    return max(fitting, key=nearness).name if fitting else "cpu"
