"""Counts where a GPU would be waited for, on a CPU: tensors that hold their values here and say they are elsewhere.

`WaitCounter` runs every operation on the values. What reads one of them (a number, a list, positions of a mask, as many
rows as a mask has) or sends one over from memory that is not page-locked is counted, with the line that asked for it.
The place is called "meta", which torch knows without a driver.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from kovqa_core.models.vlm import generation, host_values, model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten: Any = torch.ops.aten
ELSEWHERE = torch.device("meta")
_READING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten._unique2.default,
    aten.unique_consecutive.default, aten.unique_dim.default, aten.equal.default, aten.repeat_interleave.Tensor,
    aten.bincount.default, aten.is_nonzero.default,
}  # fmt: skip
_INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}
_COPYING = {aten._to_copy.default, aten.copy_.default}
_OWN_FRAMES = ("site-packages/torch/", "device_waits.py", "host_values.py")


class ElsewhereTensor(Tensor):
    """A tensor of another device."""

    value: Tensor

    @staticmethod
    def __new__(cls, value: Tensor) -> ElsewhereTensor:
        tensor: ElsewhereTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, value.shape, strides=value.stride(), storage_offset=value.storage_offset(), dtype=value.dtype,
            device=ELSEWHERE,
        )  # fmt: skip
        tensor.value = value
        return tensor

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("tolist", "numpy", "__format__", "__repr__"):
            _count(name)
            return getattr(args[0].value.detach(), name)(*args[1:])
        if name == "new_tensor":
            _count(name)
            return ElsewhereTensor(_real_tensor(args[1], **(kwargs or {})))
        return torch._C._disabled_torch_function_impl(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class WaitCounter(TorchDispatchMode):
    """Counts waits while it is entered.

    Attributes:
        waits: what was asked and by which line -> how often.
        operations: how many were run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


_counters: list[WaitCounter] = []
_real_tensor = torch.tensor


def _count(what: str) -> None:
    if _counters:
        frames = [f for f in traceback.extract_stack() if not any(own in f.filename for own in _OWN_FRAMES)]
        last = frames[-1]
        _counters[-1].waits[what, f"{last.filename.rpartition('/')[2]}: {last.name}"] += 1


def _run(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
    here = {id(t.value): t for t in tensors if isinstance(t, ElsewhereTensor)}
    asked = kwargs.get("device")
    to_elsewhere = bool(here) if asked is None else torch.device(asked) == ELSEWHERE
    if _counters:
        _counters[-1].operations += 1
    if here and func in _READING:
        _count(str(func))
    if func in _INDEXING and any(isinstance(i, ElsewhereTensor) and i.dtype == torch.bool for i in args[1]):
        _count(f"{func} by a mask")
    if func in _COPYING and asked is not None and bool(here) != to_elsewhere:
        _count("copy to or from the CPU")
    elif func not in _COPYING and func not in _INDEXING and here:
        strays = [t for t in tensors if not isinstance(t, ElsewhereTensor) and t.ndim]
        assert not strays, f"{func} of tensors on two devices"
    plain = tree_map(lambda x: x.value if isinstance(x, ElsewhereTensor) else x, (args, dict(kwargs)))
    if to_elsewhere and asked is not None:
        plain[1]["device"] = torch.device("cpu")
    result = func(*plain[0], **plain[1])
    if not to_elsewhere:
        return result
    return tree_map(lambda x: _elsewhere(x, here), result)


def _elsewhere(value: Any, here: Mapping[int, Tensor]) -> Any:
    """What an operation returned: one of its arguments, or a new tensor."""
    if not isinstance(value, Tensor):
        return value
    return here[id(value)] if id(value) in here else ElsewhereTensor(value)


def _tensor(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
    """`torch.tensor`, which reads tensors in a list one by one, and copies the list to a device before it goes on."""
    if isinstance(data, (list, tuple)):
        for _ in filter(lambda x: isinstance(x, ElsewhereTensor), data):
            _count("tensor in a list")
        data = [x.value if isinstance(x, ElsewhereTensor) else x for x in data]
    if device is None or torch.device(device) != ELSEWHERE:
        return _real_tensor(data, *args, **({} if device is None else {"device": device}), **kwargs)
    _count("list to a device")
    return ElsewhereTensor(_real_tensor(data, *args, **kwargs))


def _sent(value: Any, device: torch.device) -> Any:
    return ElsewhereTensor(value) if isinstance(value, Tensor) and value.device != device else value


@contextmanager
def counted_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[WaitCounter]:
    """Counts within this context; autocast and autograd are off in it."""
    counter = WaitCounter()
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "tensor", _tensor)
        patch.setattr(torch, "is_autocast_enabled", lambda device_type="cpu": False)
        for module in (host_values, generation, model):
            patch.setattr(module, "send_without_waiting", _sent)
        _counters.append(counter)
        only_cpu = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            with counter:
                yield counter
        finally:
            torch._C._set_only_lift_cpu_tensors(only_cpu)
            _counters.pop()


def move_elsewhere(net: nn.Module) -> None:
    """Parameters and buffers, in place; what is shared stays shared."""
    moved: dict[int, Tensor] = {}
    for module in net.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    if id(tensor) not in moved:
                        there = ElsewhereTensor(tensor.detach())
                        is_parameter = tensors is module._parameters
                        moved[id(tensor)] = (
                            nn.Parameter(there, tensor.requires_grad) if is_parameter else there
                        )
                    tensors[name] = moved[id(tensor)]  # type: ignore[assignment]
