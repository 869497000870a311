"""The simulated GPU, entered; and what of torch must be told that its tensors have no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

from bench.gpu_simulation.counting import SimulatedGpu, calling_line


@contextmanager
def _read_lists(gpu: SimulatedGpu) -> Iterator[None]:
    """`tolist` as one wait: a FakeTensor's own asks for each number by itself."""

    def tolist(tensor: FakeTensor) -> Any:
        if tensor.device.type == "cuda":
            gpu.counts.waits[f"{calling_line()} (tolist)"] += 1
        value = gpu.value_of(tensor)
        with _disable_current_modes():
            return (
                torch.zeros(tensor.shape, dtype=tensor.dtype) if value is None else value.detach()
            ).tolist()

    original = FakeTensor.tolist
    FakeTensor.tolist = tolist  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        FakeTensor.tolist = original  # type: ignore[method-assign]


@contextmanager
def _counted_events(gpu: SimulatedGpu) -> Iterator[None]:
    """An event that is waited for is a wait of the CPU, though no operation asks for it."""

    def synchronize(event: torch.cuda.Event) -> None:
        gpu.counts.waits[f"{calling_line()} (event)"] += 1

    original = torch.cuda.Event.synchronize
    torch.cuda.Event.synchronize = synchronize  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.cuda.Event.synchronize = original  # type: ignore[method-assign]


def _apply_by_assigning(
    module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True
) -> nn.Module:
    """`Module._apply`, behind `to` and `float`: torch would swap FakeTensors in place, which weak references forbid."""
    for child in module.children() if recurse else ():
        _apply_by_assigning(child, change)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            changed = change(parameter.detach())
            if (changed.dtype, changed.device) != (parameter.dtype, parameter.device):
                module._parameters[name] = nn.Parameter(changed, parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = change(buffer)
    return module


@contextmanager
def _lists_of_tensors() -> Iterator[None]:
    """`torch.tensor` of a list with FakeTensors in it, whose values torch would read from their memory."""
    original = torch.tensor

    def tensor(data: Any, **kwargs: Any) -> Tensor:
        return original(
            tree_map(lambda leaf: leaf.item() if isinstance(leaf, FakeTensor) else leaf, data), **kwargs
        )

    torch.tensor = tensor  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.tensor = original


@contextmanager
def _modules_by_assigning() -> Iterator[None]:
    original = nn.Module._apply
    nn.Module._apply = _apply_by_assigning  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module._apply = original  # type: ignore[method-assign]


@contextmanager
def simulated_gpu(*, shadow_floats: bool = False) -> Iterator[SimulatedGpu]:
    """FakeTensors and their counts; inside, tensors of device cuda can be made."""
    # What an operation makes on the CPU stays apart from what lies on the GPU, as with real tensors.
    with (
        FakeTensorMode(),
        SimulatedGpu(shadow_floats=shadow_floats) as gpu,
        _read_lists(gpu),
        _counted_events(gpu),
        _modules_by_assigning(),
        _lists_of_tensors(),
    ):
        yield gpu
