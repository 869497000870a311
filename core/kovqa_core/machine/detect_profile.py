"""Writes a profile of this machine from its GPUs and cores, or from the partitions of its SLURM cluster."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from kovqa_core.machine.gpu_settings import (
    common_gpu_name,
    describe_gpus,
    gpu_notes,
    gpu_settings,
    loader_workers,
)
from kovqa_core.machine.hardware import APPLE_GPU, nearest_profile, system_memory_gb, visible_gpus
from kovqa_core.machine.visible_devices import GpuInfo
from kovqa_core.messages import Message, message
from kovqa_core.process_pool import usable_cpu_count
from kovqa_core.settings.profile import CAREFUL_MICRO_BATCH, Profile
from kovqa_core.settings.resolve import load_document, load_profile
from kovqa_core.settings.strict_yaml import SettingsDocument, build_settings, dump_yaml

ProfileValue = str | int | bool | dict[str, str] | dict[str, int]  # of a key of a profile

# Names of GPUs older than Ampere, as clusters call them, where a name is all there is.
_WITHOUT_BF16 = re.compile(r"v100|t4\b|1080|20[678]0|titan|rtx_?[68]000$|p100|p40|k80", re.IGNORECASE)


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


@dataclass(frozen=True)
class FoundSlurm:
    """The partitions of the SLURM cluster this machine belongs to, and why they are not known though sinfo is here."""

    partitions: tuple[SlurmPartition, ...] = ()
    problem: Message | None = None


def find_slurm() -> FoundSlurm:
    """Ask sinfo, where there is one."""
    if shutil.which("sinfo") is None:
        return FoundSlurm()
    query = ["sinfo", "-h", "-o", "%P|%G|%c|%l|%D"]  # name, GPUs (gres), cores, time limit, nodes
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else ""
        return FoundSlurm(
            problem=message(
                "machine.sinfo-fails",
                "SLURM's sinfo is here and fails: {reason}; what follows is of this machine alone",
                reason=said.splitlines()[-1] if said else error,
            )
        )
    lines = [line.split("|") for line in output.splitlines() if line.count("|") == 4]
    return FoundSlurm(tuple(map(_parse_partition, lines)))


def slurm_partitions() -> list[SlurmPartition]:
    """The partitions of the SLURM cluster this machine belongs to; none where there is no SLURM."""
    return list(find_slurm().partitions)


def _parse_partition(cells: list[str]) -> SlurmPartition:
    name, gres, cpus, limit, nodes = cells
    gpu = re.search(r"\bgpu:(?:([^:,(]+):)?(\d+)", gres)  # gpu:4, gpu:a100:4(S:0-1)
    gpu_type, gpus = (gpu[1] or "", int(gpu[2])) if gpu else ("", 0)
    cores = int(re.sub(r"\D", "", cpus))  # 64+: nodes of several sizes
    default = name.endswith("*")
    return SlurmPartition(name.rstrip("*"), default, gpus, gpu_type, cores, limit, int(nodes))


def load_profile_document(name: str) -> SettingsDocument:
    """A profile's file; what one with `from_machine` does not say is filled in from this machine's GPUs.

    Args:
        name: of the profile, or a path.

    Raises:
        SettingsError: there is no such profile, or its file cannot be read.
    """
    document = load_document("profiles", name)
    gpus = visible_gpus() if document.values.get("from_machine") is True else []
    if not gpus or gpus[0].name == APPLE_GPU:  # which check_machine says, and a dry run lets pass
        return document
    found = gpu_settings(gpus, usable_cpu_count())
    filled = {key: value for key, value in found.items() if key not in document.values}
    place = message("machine.filled-in", "this machine: {gpus}", gpus=describe_gpus(gpus))
    return SettingsDocument(
        {**document.values, **filled}, {**document.origin, **{(key,): str(place) for key in filled}}
    )


def load_profile_here(name: str) -> Profile:
    """The profile of a name or path, filled in as `load_profile_document` does."""
    return build_settings(Profile, load_profile_document(name))


def detect_profile_text(name: str, profiles: Sequence[Profile]) -> str:
    """The YAML text of a profile of this machine, or of one node of the SLURM cluster it belongs to.

    Args:
        name: the profile's, for its heading.
        profiles: those for one machine alone; without a GPU of NVIDIA's, the nearest says what a process can hold.
    """
    gpus, partitions = visible_gpus(), slurm_partitions()
    if partitions:
        chosen = max(partitions, key=lambda each: (each.gpus > 0, each.default, each.gpus))
        heading = f"SLURM: {'; '.join(map(str, partitions))}."
        values = _partition_values(chosen, gpus, profiles)
        notes: list[Message] = []
    else:
        gpu_text = describe_gpus(gpus) if gpus else "no GPU"
        heading = (
            f"{platform.node()}: {gpu_text}, {usable_cpu_count()} cores, {system_memory_gb()} GB memory."
        )
        values = _machine_values(gpus, usable_cpu_count(), profiles)
        notes = [] if values.get("gpu") in (None, APPLE_GPU) else gpu_notes(gpus)
    comments = "".join(f"# {line}\n" for line in (heading, *notes, f"kovqa train --profile {name}"))
    return f"{comments}{dump_yaml(values)}"


def _machine_values(
    gpus: Sequence[GpuInfo], cores: int, profiles: Sequence[Profile]
) -> dict[str, ProfileValue]:
    """Keys that follow from GPUs and cores: NVIDIA's by their count, else as in the nearest shipped profile."""
    if gpus and gpus[0].name != APPLE_GPU:
        return {
            "gpu": common_gpu_name(gpus),
            "launcher": "torchrun",
            "nodes": 1,
            **gpu_settings(gpus, cores),
        }
    near = load_profile(nearest_profile(gpus, profiles))
    memory: dict[str, ProfileValue] = {"gpu_memory_gb": gpus[0].memory_gb or 0} if gpus else {}
    return {
        **({"gpu": gpus[0].name} if gpus else {}),
        **memory,
        "launcher": "torchrun",
        "nodes": 1,
        "processes_per_node": 1,
        "loader_workers": loader_workers(cores, 1) if gpus else 0,
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
    processes = partition.gpus or 1
    values = {
        **_machine_values(gpus if partition.gpus else [], partition.cpus, profiles),
        "launcher": "sbatch",
        "processes_per_node": processes,
        "slurm": slurm,
    }
    if not partition.gpus:
        return values
    values["loader_workers"] = loader_workers(partition.cpus, processes)
    if gpus:
        return values
    # Memory is not known, so neither is what fits.
    has_bf16 = not _WITHOUT_BF16.search(partition.gpu_type)
    return {
        "gpu": partition.gpu_type.upper() or "NVIDIA",
        **values,
        "precision": "bf16" if has_bf16 else "fp16",
        "micro_batch": {"default": CAREFUL_MICRO_BATCH},
        "activation_checkpointing": True,
    }
