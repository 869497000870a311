"""Device cuda on a CPU build of torch: FakeTensors under CUDA's own autocast, with values computed beside them.

A FakeTensor knows its device and dtype as CUDA's kernels would make them: an operation on tensors of two devices, or
of dtypes that CUDA refuses, raises what it raises there. Forward passes only: a backward pass needs torch's CUDA build
(bench/gpu_simulation); its dtypes are held by `tests/cuda_autocast.py`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kovqa_core.models.batches import ModelBatch

from bench.gpu_simulation.counting import SimulatedGpu
from bench.gpu_simulation.simulated import simulated_gpu

_GUARD_SOURCE = Path(__file__).parent / "tools" / "cuda_device_guard.cpp"


@functools.cache
def load_device_guard() -> None:
    """Let this build of torch index and read FakeTensors of device cuda; compiled once a process, in a second or two."""
    if torch.version.cuda is not None:
        pytest.skip("this build of torch has its own CUDA: use bench/gpu_simulation")
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    torch_folder = Path(torch.__file__).parent
    library = Path(tempfile.mkdtemp()) / "cuda_device_guard.so"
    command = [
        compiler,
        "-std=c++20",
        "-O0",
        "-shared",
        "-fPIC",
        f"-I{torch_folder / 'include'}",
        str(_GUARD_SOURCE),
    ]
    subprocess.run([*command, "-o", str(library), f"-L{torch_folder / 'lib'}", "-lc10"], check=True)
    ctypes.CDLL(str(library))


class _Event:
    """A mark in the GPU's work; to wait for it is a wait."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        self.gpu = gpu

    def record(self) -> None:
        """Set the mark here."""

    def synchronize(self) -> None:
        """Wait for it."""
        self.gpu.counts.waits["event"] += 1


class _HostGenerator(torch.Generator):
    """A generator of any device, made where there is one: the values are computed on the CPU."""

    def __new__(cls, device: object = None) -> _HostGenerator:
        return super().__new__(cls)


@contextlib.contextmanager
def simulated_cuda() -> Iterator[SimulatedGpu]:
    """A simulated GPU that computes all values; `torch.autocast("cuda")` works inside."""
    load_device_guard()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
        patch.setattr(torch, "Generator", _HostGenerator)
        with simulated_gpu(shadow_floats=True) as gpu:
            patch.setattr("torch.cuda.Event", functools.partial(_Event, gpu))
            yield gpu


def upload_batch(gpu: SimulatedGpu, batch: ModelBatch) -> ModelBatch:
    """A batch on the simulated GPU."""
    gpu_tensors, host_tensors = (
        {
            name: None if tensor is None else gpu.upload(tensor, device)
            for name, tensor in batch.tensors.items()
        }
        for device in ("cuda", "cpu")
    )
    return replace(batch, tensors=gpu_tensors, on_host=host_tensors)
