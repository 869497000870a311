"""Writes a profile of this machine from its GPUs and cores, or from the partitions of its SLURM cluster."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from kovqa_core.machine.hardware import nearest_profile, system_memory_gb, visible_gpus
from kovqa_core.machine.visible_devices import GpuInfo
from kovqa_core.process_pool import usable_cpu_count
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import load_profile
from kovqa_core.settings.strict_yaml import dump_yaml

ProfileValue = str | int | bool | dict[str, str] | dict[str, int]  # of a key of a profile

_MAX_LOADER_WORKERS = 12  # more only fight for memory bandwidth


@dataclass(frozen=True)
class SlurmPartition:
    """One partition of a SLURM cluster, with the size of its nodes."""

    name: str
    default: bool
    gpus: int
    gpu_type: str
    cpus: int
    limit: str  # of time, as SLURM writes it: 2-00:00:00, infinite
    nodes: int

    def __str__(self) -> str:
        gpus = f"{self.gpus} × {self.gpu_type or 'GPU'}" if self.gpus else "no GPU"
        return f"{self.name} ({self.nodes} nodes, {gpus}, {self.cpus} cores, limit {self.limit})"


def slurm_partitions() -> list[SlurmPartition]:
    """The partitions of the SLURM cluster this machine belongs to; none where there is no SLURM."""
    if shutil.which("sinfo") is None:
        return []
    query = ["sinfo", "-h", "-o", "%P|%G|%c|%l|%D"]  # name, GPUs (gres), cores, time limit, nodes
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [_parse_partition(line.split("|")) for line in output.splitlines() if line.count("|") == 4]


def _parse_partition(cells: list[str]) -> SlurmPartition:
    name, gres, cpus, limit, nodes = cells
    gpu = re.search(r"\bgpu:(?:([^:,(]+):)?(\d+)", gres)  # gpu:4, gpu:a100:4(S:0-1)
    gpu_type, gpus = (gpu[1] or "", int(gpu[2])) if gpu else ("", 0)
    cores = int(re.sub(r"\D", "", cpus))  # 64+: nodes of several sizes
    default = name.endswith("*")
    return SlurmPartition(name.rstrip("*"), default, gpus, gpu_type, cores, limit, int(nodes))


def detect_profile_text(name: str, profiles: Sequence[Profile]) -> str:
    """The YAML text of a profile of this machine, or of one node of the SLURM cluster it belongs to.

    Args:
        name: the profile's, for its heading.
        profiles: those for one machine alone; what a GPU can hold is taken from the nearest.
    """
    gpus, partitions = visible_gpus(), slurm_partitions()
    if partitions:
        chosen = max(partitions, key=lambda each: (each.gpus > 0, each.default, each.gpus))
        heading = f"SLURM: {'; '.join(map(str, partitions))}."
        values = _partition_values(chosen, gpus, profiles)
    else:
        gpu_text = f"{len(gpus)} × {gpus[0].name} ({gpus[0].memory_text})" if gpus else "no GPU"
        heading = (
            f"{platform.node()}: {gpu_text}, {usable_cpu_count()} cores, {system_memory_gb()} GB memory."
        )
        values = _machine_values(gpus, len(gpus) or 1, usable_cpu_count(), profiles)
    return f"# {heading}\n# kovqa train --profile {name}\n{dump_yaml(values)}"


def _machine_values(
    gpus: Sequence[GpuInfo], processes: int, cores: int, profiles: Sequence[Profile]
) -> dict[str, ProfileValue]:
    """Keys that follow from GPUs and cores; what a GPU can hold is the nearest shipped profile's."""
    near = load_profile(nearest_profile(gpus, profiles))
    gpu_values: dict[str, ProfileValue] = {"gpu": gpus[0].name} if gpus else {}
    known = [gpu.memory_gb for gpu in gpus if gpu.memory_gb]
    if known and len(known) == len(gpus):
        gpu_values["gpu_memory_gb"] = min(known)
    return {
        **gpu_values,
        "launcher": "torchrun",
        "nodes": 1,
        "processes_per_node": processes,
        "loader_workers": max(0, min(_MAX_LOADER_WORKERS, cores // processes - 1)) if gpus else 0,
        "precision": near.precision,
        "micro_batch": near.micro_batch,
        "activation_checkpointing": near.activation_checkpointing,
    }


def _partition_values(
    partition: SlurmPartition, gpus: Sequence[GpuInfo], profiles: Sequence[Profile]
) -> dict[str, ProfileValue]:
    """Keys for one node of a partition.

    Args:
        partition: the one to train on.
        gpus: of this machine. A login node shows none: then the partition's name of the GPU is all that is
            known, and the values are careful ones that fit most cards.
        profiles: see `detect_profile_text`.
    """
    slurm = {"partition": partition.name}
    if partition.limit != "infinite":
        slurm["time"] = partition.limit
    if partition.gpu_type:
        slurm["gpu_type"] = partition.gpu_type
    values = {
        **_machine_values(gpus if partition.gpus else [], partition.gpus or 1, partition.cpus, profiles),
        "launcher": "sbatch",
        "slurm": slurm,
    }
    if not partition.gpus or gpus:
        return values
    loader_workers = max(0, min(_MAX_LOADER_WORKERS, partition.cpus // partition.gpus - 1))
    return {
        "gpu": partition.gpu_type.upper() or "NVIDIA",
        **values,
        "loader_workers": loader_workers,
        "precision": "bf16",
        "micro_batch": {"default": 8},
        "activation_checkpointing": True,
    }
