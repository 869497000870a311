"""What a profile of this machine's GPUs says: how many processes, in which precision, with how many loaders.

By memory, number and compute capability, never by a card's name: so it holds for cards nobody has listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from kovqa_core.machine.hardware import (
    APPLE_GPU,
    MIN_GPU_MEMORY_GB,
    OLDEST_CAPABILITY,
    is_too_small,
    lowest_capability,
    nearest_profile,
    smallest_gpu_gb,
)
from kovqa_core.machine.visible_devices import GpuInfo
from kovqa_core.messages import Message, message
from kovqa_core.settings.profile import Profile

_MAX_LOADER_WORKERS = 12  # more only fight for memory bandwidth

BF16_CAPABILITY = (8, 0)  # Ampere: the first with products in bf16
_TENSOR_CORE_CAPABILITY = (7, 0)  # Volta: before it, 16 bits are slower than 32 on most cards


def gpu_settings(gpus: Sequence[GpuInfo], cores: int) -> dict[str, str | int]:
    """Keys of a profile for all GPUs of a machine; of several kinds, the weakest decides.

    Args:
        gpus: at least one, NVIDIA's.
        cores: of the machine.
    """
    processes = used_gpus(len(gpus))
    memory_gb = smallest_gpu_gb(gpus)
    return {
        **({"gpu_memory_gb": memory_gb} if memory_gb else {}),
        "processes_per_node": processes,
        "loader_workers": loader_workers(cores, processes),
        "precision": training_precision(lowest_capability(gpus)),
    }


def training_precision(capability: tuple[int, int] | None) -> Literal["bf16", "fp16", "fp32"]:
    """The precision for a compute capability.

    Args:
        capability: None: not known. Then fp16, which every GPU computes in.
    """
    if capability is None:
        return "fp16"
    if capability >= BF16_CAPABILITY:
        return "bf16"
    return "fp16" if capability >= _TENSOR_CORE_CAPABILITY else "fp32"


def used_gpus(count: int) -> int:
    """How many of so many GPUs are used: a power of two, because the recipes' batches are."""
    return 1 << (count.bit_length() - 1)


def loader_workers(cores: int, processes: int) -> int:
    """Loader processes of each training process, so that every process has a core."""
    return max(0, min(_MAX_LOADER_WORKERS, cores // processes - 1))


def common_gpu_name(gpus: Sequence[GpuInfo]) -> str:
    """The name of all GPUs; of several kinds, NVIDIA's."""
    names = {gpu.name for gpu in gpus}
    return names.pop() if len(names) == 1 else "NVIDIA"


def describe_gpus(gpus: Sequence[GpuInfo]) -> str:
    """Number, name and memory of each kind of GPU, like "2 × NVIDIA GeForce RTX 3090 (24 GB)"."""
    return ", ".join(f"{gpus.count(kind)} × {kind.name} ({kind.memory_text})" for kind in dict.fromkeys(gpus))


def profile_notes(gpus: Sequence[GpuInfo], profiles: Sequence[Profile]) -> list[Message]:
    """`gpu_notes`, where no profile was written for just these GPUs; of one that was, nothing is guessed.

    Args:
        gpus: of the machine.
        profiles: those for one machine alone.
    """
    if not gpus or gpus[0].name == APPLE_GPU:
        return []
    name = nearest_profile(gpus, profiles)
    is_filled_in = any(profile.from_machine for profile in profiles if profile.name == name)
    return gpu_notes(gpus) if is_filled_in or name == "cpu" else []


def gpu_notes(gpus: Sequence[GpuInfo]) -> list[Message]:
    """What a person should know of a profile that is filled in from these GPUs: what is not used, and why."""
    if not gpus:
        return []
    notes = []
    weakest = min(gpus, key=lambda gpu: (gpu.compute_capability or (0, 0), gpu.memory_gb or 0))
    if len({(gpu.name, gpu.memory_gb) for gpu in gpus}) > 1:
        notes.append(
            message(
                "machine.mixed-gpus",
                "GPUs of several kinds ({gpus}): all are used as if they had the smallest memory and the lowest compute "
                "capability; CUDA_VISIBLE_DEVICES leaves some out, by their numbers in nvidia-smi",
                gpus=describe_gpus(gpus),
            )
        )
    if is_too_small(gpus):
        return [*notes, _too_small_note(gpus, weakest)]
    if (used := used_gpus(len(gpus))) < len(gpus):
        notes.append(
            message(
                "machine.some-gpus",
                "{used} of {count} GPUs are used, because the recipes' batches are powers of two (others: --set "
                "profile.processes_per_node={count} with an optim.global_batch that {count} divides)",
                used=used,
                count=len(gpus),
            )
        )
    capability = lowest_capability(gpus)
    if capability is None:
        notes.append(
            message(
                "machine.capability-unknown",
                "neither nvidia-smi nor torch says which compute capability {gpu} has: fp16 (from 8.0 on: --set "
                "profile.precision=bf16)",
                gpu=gpus[0].name,
            )
        )
    elif capability < _TENSOR_CORE_CAPABILITY:
        notes.append(
            message(
                "machine.no-tensor-cores",
                "{gpu} has no tensor cores (compute capability {capability}): fp32",
                gpu=weakest.name,
                capability=capability_text(capability),
            )
        )
    return notes


def _too_small_note(gpus: Sequence[GpuInfo], weakest: GpuInfo) -> Message:
    capability = weakest.compute_capability
    if capability is not None and capability < OLDEST_CAPABILITY:
        return message(
            "machine.gpu-too-old",
            "{gpu} has compute capability {capability}, which today's torch does not run on, so models run on the CPU",
            gpu=weakest.name,
            capability=capability_text(capability),
        )
    smallest = min(gpus, key=lambda gpu: gpu.memory_gb or 0)
    return message(
        "machine.gpu-too-small",
        "{gpu} ({memory}) has less than the {least} GB that training needs, so models run on the CPU (kovqa profiles "
        "detect -o NAME writes a profile for it)",
        gpu=smallest.name,
        memory=smallest.memory_text,
        least=MIN_GPU_MEMORY_GB,
    )


def capability_text(capability: tuple[int, int]) -> str:
    """A compute capability as NVIDIA writes it, like 8.6."""
    return f"{capability[0]}.{capability[1]}"
