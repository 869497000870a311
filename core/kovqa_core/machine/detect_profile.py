"""A profile of this machine, written from what it shows: GPUs, cores, memory, SLURM's partitions."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kovqa_core.machine.hardware import GpuInfo, nearest_profile, system_memory_gb, visible_gpus
from kovqa_core.process_pool import usable_cpu_count
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import load_profile
from kovqa_core.settings.strict_yaml import dump_yaml

_MAX_LOADER_WORKERS = 12  # more only fight for memory bandwidth


@dataclass(frozen=True)
class SlurmPartition:
    """One partition of a SLURM cluster, with the size of its nodes."""

    name: str
    default: bool
    gpus: int
    gpu_type: str
    cpus: int
    limit: str  # of time, as SLURM writes it
    nodes: int

    def __str__(self) -> str:
        gpus = f"{self.gpus} × {self.gpu_type or 'GPU'}" if self.gpus else "no GPU"
        return f"{self.name} ({self.nodes} nodes, {gpus}, {self.cpus} cores, limit {self.limit})"


def slurm_partitions() -> list[SlurmPartition]:
    """The partitions of the SLURM cluster this machine belongs to; none where there is no SLURM."""
    if shutil.which("sinfo") is None:
        return []
    query = ["sinfo", "-h", "-o", "%P|%G|%c|%l|%D"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [_parse_partition(line.split("|")) for line in output.splitlines() if line.count("|") == 4]


def _parse_partition(cells: list[str]) -> SlurmPartition:
    name, gres, cpus, limit, nodes = cells
    gpu = re.search(r"\bgpu:(?:([^:,(]+):)?(\d+)", gres)  # gpu:4, gpu:a100:4(S:0-1)
    kind, count = (gpu[1] or "", int(gpu[2])) if gpu else ("", 0)
    number = int(re.sub(r"\D", "", cpus))  # 64+: nodes of several sizes
    return SlurmPartition(name.rstrip("*"), name.endswith("*"), count, kind, number, limit, int(nodes))


def detect_profile_text(name: str, profiles: Sequence[Profile]) -> str:
    """The text of a profile of this machine: a cluster's, where SLURM answers.

    Args:
        name: the profile's, for its heading.
        profiles: those for one machine alone; what a GPU can hold is taken from the nearest.
    """
    found, queue = visible_gpus(), slurm_partitions()
    if queue:
        chosen = max(queue, key=lambda partition: (partition.gpus > 0, partition.default, partition.gpus))
        head = f"SLURM: {'; '.join(map(str, queue))}."
        values = _partition_values(chosen, found, profiles)
    else:
        shown = f"{len(found)} × {found[0].name} ({found[0].memory_gb} GB)" if found else "no GPU"
        head = f"{platform.node()}: {shown}, {usable_cpu_count()} cores, {system_memory_gb()} GB memory."
        values = _machine_values(found, len(found) or 1, usable_cpu_count(), profiles)
    return f"# {head}\n# kovqa train --profile {name}\n{dump_yaml(values)}"


def _machine_values(
    found: list[GpuInfo], processes: int, cpus: int, profiles: Sequence[Profile]
) -> dict[str, Any]:
    """Keys that follow from GPUs and cores; what a GPU can hold is the nearest shipped profile's."""
    near = load_profile(nearest_profile(found, profiles))
    gpu = {"gpu": found[0].name, "gpu_memory_gb": min(g.memory_gb for g in found)} if found else {}
    return {
        **gpu,
        "launcher": "torchrun",
        "nodes": 1,
        "processes_per_node": processes,
        "loader_workers": max(0, min(_MAX_LOADER_WORKERS, cpus // processes - 1)) if found else 0,
        "precision": near.precision,
        "micro_batch": near.micro_batch,
        "activation_checkpointing": near.activation_checkpointing,
    }


def _partition_values(
    chosen: SlurmPartition, found: list[GpuInfo], profiles: Sequence[Profile]
) -> dict[str, Any]:
    """Keys for one node of a partition; careful ones where its GPUs can only be guessed from here."""
    limit = {} if chosen.limit == "infinite" else {"time": chosen.limit}
    kind = {"gpu_type": chosen.gpu_type} if chosen.gpu_type else {}
    values = {
        **_machine_values(found if chosen.gpus else [], chosen.gpus or 1, chosen.cpus, profiles),
        "launcher": "sbatch",
        "slurm": {"partition": chosen.name, **limit, **kind},
    }
    if chosen.gpus and not found:
        loaders = max(0, min(_MAX_LOADER_WORKERS, chosen.cpus // chosen.gpus - 1))
        guess = {"gpu": chosen.gpu_type.upper() or "NVIDIA", **values, "loader_workers": loaders}
        return guess | {"precision": "bf16", "micro_batch": {"default": 8}, "activation_checkpointing": True}
    return values
