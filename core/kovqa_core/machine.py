"""What this machine has, asked without torch: GPUs, cores; and the profile that fits it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.errors import MachineError
from kovqa_core.paths import names
from kovqa_core.settings.find import load_profile
from kovqa_core.settings.profile import Profile


@dataclass(frozen=True)
class Gpu:
    """One visible NVIDIA GPU."""

    name: str
    memory_gb: int


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs a process started here would see (CUDA_VISIBLE_DEVICES respected)."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rsplit(",", 1) for line in output.splitlines() if "," in line]
    found = [Gpu(name.strip(), round(float(memory) / 1024)) for name, memory in rows]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    chosen = [part for part in visible.split(",") if part.strip() and part.strip() != "-1"]
    return found[: len(chosen)]


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fitting_profile(found: list[Gpu]) -> str:
    """Name of the shipped profile nearest to a machine with these GPUs.

    The same GPU and count if there is one, else the largest profile that asks for no more
    GPUs and no more memory; `cpu` without a GPU.
    """
    if not found:
        return "cpu"
    count, memory = len(found), min(gpu.memory_gb for gpu in found)
    profiles = [(name, load_profile(name)) for name in names("profiles")]
    for name, profile in profiles:
        if profile.gpu and profile.gpu in found[0].name and profile.processes_per_node == count:
            return name
    fitting = [
        (profile.processes_per_node, profile.gpu_memory_gb, name)
        for name, profile in profiles
        if profile.gpu and profile.processes_per_node <= count and profile.gpu_memory_gb <= memory + 1
    ]
    return max(fitting)[2] if fitting else "cpu"


def check(profile: Profile) -> None:
    """See that this machine has what a profile names.

    Raises:
        MachineError: too few GPUs; names the profile that fits and the dry run.
    """
    if profile.device == "cpu":
        return
    found = gpus()
    if len(found) < profile.processes_per_node:
        raise MachineError(
            f"profile {profile.name} wants {profile.processes_per_node} GPUs, this machine shows {len(found)}",
            f"use --profile {fitting_profile(found)}, or see the plan with --dry-run",
        )


def free_memory() -> int | None:
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
