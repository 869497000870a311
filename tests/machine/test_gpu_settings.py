"""Machines with the GPUs people have: what nvidia-smi prints for them, and the profile that is filled in from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.launch.machine_check import (
    gpu_warnings,
    local_profiles,
    other_gpu_warnings,
    profile_of_this_machine,
)
from kovqa_core.machine import detect_profile, doctor
from kovqa_core.machine import nvidia_smi as smi
from kovqa_core.machine.detect_profile import detect_profile_text, load_profile_document
from kovqa_core.machine.hardware import visible_gpus
from kovqa_core.plan.micro_batch import choose_micro_batch, device_memory
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.strict_yaml import SettingsDocument, build_settings, parse_yaml

Install = Callable[..., None]


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(detect_profile, "usable_cpu_count", lambda: 16)
    monkeypatch.setattr(detect_profile, "slurm_partitions", lambda: [])


def filled() -> Profile:
    """The profile of this machine, as `kovqa train` takes it."""
    return build_settings(Profile, load_profile_document(profile_of_this_machine()))


# rows of nvidia-smi, the profile's name, processes, GB, precision, loader workers
MACHINES = {
    "2 x H100": (["NVIDIA H100 80GB HBM3, 81559, 9.0"] * 2, "nvidia", 2, 80, "bf16", 7),
    "2 x 3090": (["NVIDIA GeForce RTX 3090, 24576, 8.6"] * 2, "nvidia", 2, 24, "bf16", 7),
    "8 x 3090": (["NVIDIA GeForce RTX 3090, 24576, 8.6"] * 8, "nvidia", 8, 24, "bf16", 1),
    "4 x 3090": (["NVIDIA GeForce RTX 3090, 24576, 8.6"] * 4, "rtx3090x4", 4, 24, "bf16", 6),
    "4080": (["NVIDIA GeForce RTX 4080, 16376, 8.9"], "nvidia", 1, 16, "bf16", 12),
    "5080": (["NVIDIA GeForce RTX 5080, 16303, 12.0"], "nvidia", 1, 16, "bf16", 12),
    "5090": (["NVIDIA GeForce RTX 5090, 32607, 12.0"], "nvidia", 1, 32, "bf16", 12),
    "L4": (["NVIDIA L4, 23034, 8.9"], "nvidia", 1, 22, "bf16", 12),
    "L40S": (["NVIDIA L40S, 46068, 8.9"], "nvidia", 1, 45, "bf16", 12),
    "A10G": (["NVIDIA A10G, 23028, 8.6"], "nvidia", 1, 22, "bf16", 12),
    "V100 16": (["Tesla V100-SXM2-16GB, 16384, 7.0"], "nvidia", 1, 16, "fp16", 12),
    "V100 32": (["Tesla V100-SXM2-32GB, 32768, 7.0"] * 4, "nvidia", 4, 32, "fp16", 3),
    "3060": (["NVIDIA GeForce RTX 3060, 12288, 8.6"], "nvidia", 1, 12, "bf16", 12),
    "2080 Ti": (["NVIDIA GeForce RTX 2080 Ti, 11264, 7.5"], "nvidia", 1, 11, "fp16", 12),
    "RTX 8000": (["Quadro RTX 8000, 49152, 7.5"], "nvidia", 1, 48, "fp16", 12),
    "Kaggle": (["Tesla T4, 15360, 7.5"] * 2, "nvidia", 2, 15, "fp16", 7),
    "GTX 1080": (["NVIDIA GeForce GTX 1080, 8192, 6.1"], "nvidia", 1, 8, "fp32", 12),
    "mixed": (["NVIDIA GeForce RTX 3090, 24576, 8.6", "NVIDIA GeForce RTX 2080 Ti, 11264, 7.5"],
              "nvidia", 2, 11, "fp16", 7),
    "three": (["NVIDIA RTX 6000 Ada Generation, 49140, 8.9"] * 3, "nvidia", 2, 48, "bf16", 7),
    "B200": (["NVIDIA B200, 183359, 10.0"] * 8, "nvidia", 8, 179, "bf16", 1),
}  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
def test_a_profile_is_filled_in_from_the_gpus(nvidia_smi: Install, machine: str) -> None:
    rows, name, processes, memory_gb, precision, workers = MACHINES[machine]
    nvidia_smi("\n".join(rows) + "\n")
    profile = filled()
    assert profile.name == name
    assert (profile.processes_per_node, profile.gpu_memory_gb) == (processes, memory_gb)
    assert (profile.precision, profile.loader_workers, profile.device) == (precision, workers, "cuda")
    # doctor, `profiles detect` and the plan agree.
    finding = next(each for each in doctor.hardware_findings(local_profiles()) if each.name == "profile")
    assert f"{name} fits: kovqa train -p {name}" in finding.what
    detected = build_settings(
        Profile,
        SettingsDocument(
            {"name": name, **parse_yaml(detect_profile_text(name, local_profiles()), "x").values}
        ),
    )
    keys = ("gpu_memory_gb", "precision", "micro_batch", "activation_checkpointing", "processes_per_node")
    assert all(getattr(detected, key) == getattr(profile, key) for key in keys)
    chosen, plan = choose_micro_batch(load_recipe("vqav2"), profile)
    assert plan.warning is None
    assert chosen.max_micro_batch("vqav2") >= 4


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        ("GTX 1080", "GTX 1080 has no tensor cores (compute capability 6.1): fp32"),
        (
            "mixed",
            "1 × NVIDIA GeForce RTX 3090 (24 GB), 1 × NVIDIA GeForce RTX 2080 Ti (11 GB)): all are used as if",
        ),
        ("three", "2 of 3 GPUs are used"),
    ],
)
def test_what_is_not_used_is_said(nvidia_smi: Install, machine: str, says: str) -> None:
    nvidia_smi("\n".join(MACHINES[machine][0]) + "\n")
    (warning,) = gpu_warnings()
    assert says in warning
    finding = next(each for each in doctor.hardware_findings(local_profiles()) if each.name == "profile")
    assert warning in finding.what
    assert f"# {warning}" in detect_profile_text("x", local_profiles())


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("Tesla K80, 11441, 3.7", "compute capability 3.7, which today's torch does not run on"),
        ("NVIDIA GeForce GTX 1050, 2048, 6.1", "(2 GB) has less than the 6 GB"),
    ],
)
def test_a_gpu_that_cannot_train_is_named(nvidia_smi: Install, row: str, says: str) -> None:
    nvidia_smi(row + "\n")
    assert profile_of_this_machine() == "cpu"
    assert says in "; ".join(gpu_warnings())


def test_a_slice_has_its_own_memory_and_its_cards_capability(nvidia_smi: Install) -> None:
    listed = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5d)\n  MIG 3g.40gb     Device  0: (UUID: MIG-c6)\n"
    nvidia_smi("NVIDIA H100 80GB HBM3, 81559, 9.0\n", listed)
    profile = filled()
    assert (profile.name, profile.gpu_memory_gb, profile.precision) == ("nvidia", 40, "bf16")


def test_an_old_nvidia_smi_leaves_the_capability_to_torch(
    nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = 'case "$*" in *compute_cap*) echo \'Field "compute_cap" is not a valid field to query.\'; exit 2;; esac'
    nvidia_smi("Tesla V100-SXM2-32GB, 32510\n", before=unknown)
    monkeypatch.setattr(smi, "_TORCH_CAPABILITIES", "print('7.0')")
    assert [gpu.compute_capability for gpu in visible_gpus()] == [(7, 0)]
    assert filled().precision == "fp16"
    smi._ask_nvidia_smi.cache_clear()
    monkeypatch.setattr(smi, "_TORCH_CAPABILITIES", "raise SystemExit(1)")  # torch cannot tell, either
    assert [gpu.compute_capability for gpu in visible_gpus()] == [None]
    assert "neither nvidia-smi nor torch says" in "; ".join(gpu_warnings())
    assert filled().precision == "fp16"


def test_what_the_file_says_is_kept(nvidia_smi: Install, tmp_path: Path) -> None:
    nvidia_smi("NVIDIA GeForce RTX 3090, 24576, 8.6\n" * 4)
    file = tmp_path / "two.yaml"
    file.write_text("gpu: RTX 3090\nfrom_machine: true\nprocesses_per_node: 2\n")
    document = load_profile_document(str(file))
    profile = build_settings(Profile, document)
    assert (profile.processes_per_node, profile.gpu_memory_gb) == (2, 24)
    assert document.where(("gpu_memory_gb",)) == "this machine: 4 × NVIDIA GeForce RTX 3090 (24 GB)"


def test_a_profile_for_other_gpus_is_counted_with_these(nvidia_smi: Install) -> None:
    nvidia_smi("NVIDIA GeForce RTX 3090, 24576, 8.6\n" * 4)
    profile = load_profile("a100x4")
    (warning,) = other_gpu_warnings(profile)
    assert "is for GPUs of 80 GB, and NVIDIA GeForce RTX 3090 has 24 GB" in warning
    assert "--profile rtx3090x4 fits this machine" in warning
    assert device_memory(profile) == 24 * 2**30
    on_these = choose_micro_batch(load_recipe("kobeit3"), profile)[0]
    assert (
        on_these.micro_batch
        == choose_micro_batch(load_recipe("kobeit3"), load_profile("rtx3090x4"))[0].micro_batch
    )
    assert device_memory(load_profile("slurm-a100x4")) == 80 * 2**30  # trains on other machines
    nvidia_smi("Tesla V100-SXM2-32GB, 32768, 7.0\n")
    (*_, slow) = other_gpu_warnings(load_profile("h100x1"))
    assert "--set profile.precision=fp16" in slow


@pytest.mark.parametrize(
    ("gpu_type", "precision"),
    [("v100", "fp16"), ("a100", "bf16"), ("rtx8000", "fp16"), ("h100", "bf16"), ("t4", "fp16")],
)
def test_a_partition_names_its_gpu(monkeypatch: pytest.MonkeyPatch, gpu_type: str, precision: str) -> None:
    partition = detect_profile._parse_partition(f"gpu|gpu:{gpu_type}:4|64|infinite|3".split("|"))
    monkeypatch.setattr(detect_profile, "visible_gpus", lambda: [])
    monkeypatch.setattr(detect_profile, "slurm_partitions", lambda: [partition])
    values = parse_yaml(detect_profile_text("x", local_profiles()), "x").values
    assert (values["precision"], values["processes_per_node"]) == (precision, 4)
