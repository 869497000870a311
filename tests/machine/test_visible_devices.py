"""CUDA_VISIBLE_DEVICES is read as CUDA reads it, and GPUs that cannot be used are named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from kovqa_core.launch.machine_check import gpu_warnings, profile_of_this_machine
from kovqa_core.machine import nvidia_smi as smi
from kovqa_core.machine.hardware import find_gpus, visible_gpus
from kovqa_core.machine.nvidia_smi import MigSlice, NvidiaCard
from kovqa_core.machine.visible_devices import GpuInfo, visible_cards

GT710 = NvidiaCard("NVIDIA GeForce GT 710", 2, "GPU-aa11")
RTX3090 = NvidiaCard("NVIDIA GeForce RTX 3090", 24, "GPU-ab22")
A100 = NvidiaCard(
    "NVIDIA A100-SXM4-80GB", 80, "GPU-c0", (MigSlice("1g.10gb", "MIG-1"), MigSlice("3g.40gb", "MIG-3"))
)
FOUR = (RTX3090,) * 4
Install = Callable[..., None]


@pytest.mark.parametrize(
    "visible", ["7", "0,0", "0,-1,1", "1,7,2", "", "-1", "3", "2,1,0", "0,x", "1,1,2", "+1", "1gpu,0", "0,,1"]
)
def test_numbers_are_read_as_torch_reads_them(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    """Torch counts what CUDA would show, from the same variable; it is the judge of ours."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    wanted = list(torch.cuda._parse_visible_devices())
    until = next((place for place, number in enumerate(wanted) if number >= len(FOUR)), len(wanted))
    gpus, problem = visible_cards(FOUR, visible, None)
    assert len(gpus) == until
    hides_on_purpose = visible in ("", "-1", "0,-1,1", "0,,1")
    assert (problem is None) == (hides_on_purpose or len(gpus) == len(visible.split(",")))


@pytest.mark.parametrize(
    ("visible", "order", "name"),
    [
        ("1", None, "RTX 3090"),
        ("0", None, "GT 710"),
        ("1", "PCI_BUS_ID", "RTX 3090"),
        ("0", "FASTEST_FIRST", "RTX 3090"),
        ("GPU-ab", None, "RTX 3090"),
        ("GPU-aa11", None, "GT 710"),
    ],
)
def test_which_gpu_is_meant(visible: str, order: str | None, name: str) -> None:
    (gpu,), problem = visible_cards((GT710, RTX3090), visible, order)
    assert gpu.name.endswith(name)
    assert problem is None


@pytest.mark.parametrize(
    ("visible", "count", "says"),
    [
        ("GPU-a", 0, "no GPU-a among"),  # of two
        ("GPU-aa,GPU-zz,GPU-ab", 1, "no GPU-zz among"),
        ("GPU-aa,GPU-aa11", 0, "names a GPU twice"),
        ("GPU-aa,1", 1, "no 1 among"),  # numbers and UUIDs do not mix
    ],
)
def test_uuids_that_are_not_there(visible: str, count: int, says: str) -> None:
    gpus, problem = visible_cards((GT710, RTX3090), visible, None)
    assert len(gpus) == count
    assert problem is not None
    assert says in problem


@pytest.mark.parametrize(
    ("cards", "visible", "expected"),
    [
        ((A100,), "MIG-3", [("NVIDIA A100-SXM4-80GB MIG 3g.40gb", 40)]),
        ((A100,), "MIG-1,MIG-3", [("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 10)]),  # a process sees one slice
        ((A100,), None, [("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 10)]),
        ((RTX3090, A100), "0", [("NVIDIA GeForce RTX 3090", 24)]),
        ((NvidiaCard("NVIDIA A100-SXM4-80GB", 80),), "MIG-feee0c61", [("NVIDIA A100-SXM4-80GB MIG", None)]),
        ((A100,), "MIG-7", []),
        ((A100,), "MIG-1,MIG-1", []),
    ],
)
def test_a_slice_never_has_the_memory_of_the_whole_card(
    cards: tuple[NvidiaCard, ...], visible: str | None, expected: list[tuple[str, int | None]]
) -> None:
    gpus, problem = visible_cards(cards, visible, None)
    assert gpus == [GpuInfo(*each) for each in expected]
    assert (problem is None) == bool(expected)


def test_slices_are_read_from_the_list(nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = (
        "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)\n"
        "  MIG 1g.10gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)\n"
        "  MIG 1c.3g.40gb  Device  1: (UUID: MIG-feee0c61-26ec-5616-bb59-b6d777cc4f34)\n"
    )
    nvidia_smi("NVIDIA A100-SXM4-80GB, 81920\n", listed)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-feee0c61-26ec-5616-bb59-b6d777cc4f34")
    assert [gpu.memory_gb for gpu in visible_gpus()] == [40]
    assert profile_of_this_machine() != "a100x1"
    nvidia_smi("NVIDIA A100-SXM4-80GB, 81920\n")  # as inside of a container that lists none
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-feee0c61-26ec-5616-bb59-b6d777cc4f34")
    assert [gpu.memory_gb for gpu in visible_gpus()] == [None]
    assert profile_of_this_machine() not in ("a100x1", "cpu")


@pytest.mark.parametrize(
    ("row", "count", "says"),
    [
        ("NVIDIA GB10, [N/A]", 1, "does not say how much memory NVIDIA GB10 has"),
        ("Orin (nvgpu), [Not Supported]", 1, "does not say how much memory Orin"),
        ("NVIDIA H100, [Insufficient Permissions]", 1, "does not say how much memory"),
        ("NVIDIA A100-SXM4-80GB, [GPU is lost]", 0, "[GPU is lost]"),
        ("NVIDIA A100-SXM4-80GB, [GPU requires reset]", 0, "[GPU requires reset]"),
        ("NVIDIA GeForce GT 710, 2048", 1, "less than the 6 GB that training needs"),
    ],
)
def test_a_gpu_of_unknown_memory_or_lost_is_named(
    nvidia_smi: Install, row: str, count: int, says: str
) -> None:
    nvidia_smi(row + "\n")
    assert len(visible_gpus()) == count
    assert says in "; ".join(gpu_warnings())
    assert (profile_of_this_machine() == "cpu") == (count == 0 or "GT 710" in row)


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("Failed to initialize NVML: Driver/library version mismatch\n", 18, "fails with 18: Failed to initialize NVML"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9, "fails with 9"),
        ("No devices were found\n", 6, "No devices were found"),
        ("No devices were found\n", 0, "No devices were found"),
        ("Unable to determine the device handle for GPU 0000:0A:00.0: GPU is lost.\nNVIDIA A100-SXM4-80GB, 81920\n",
         15, "GPU is lost"),
    ],
)  # fmt: skip
def test_an_nvidia_smi_that_fails_is_quoted(nvidia_smi: Install, text: str, code: int, says: str) -> None:
    nvidia_smi(text, code=code)
    (problem,) = find_gpus().problems
    assert says in problem
    assert len(find_gpus().gpus) == text.count("81920")


def test_an_nvidia_smi_that_hangs_is_not_waited_for(
    nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi("NVIDIA A100-SXM4-80GB, 81920\n", before="sleep 60")
    monkeypatch.setattr(smi, "QUERY_SECONDS", 0.3)
    assert "did not answer within 0.3 s" in find_gpus().problems[0]
    assert visible_gpus() == []


def test_hidden_gpus_are_no_problem(nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi("broken\n", code=18)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_gpus().problems == ()
