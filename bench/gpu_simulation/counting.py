"""What a GPU would do, counted operation by operation, on tensors without memory (torch's FakeTensors).

`SimulatedGpu` lies over a `FakeTensorMode`. Each operation that reaches a kernel is counted with the bytes that it
reads and writes; so is each wait of the CPU for the GPU. FakeTensors have no values, but a network asks for some
(`.tolist()` of an image's grid, a mask as an index): whole numbers and truth values are therefore computed beside
them on the CPU ("shadows"), or all values, where a model is small (`shadow_floats`).
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
)
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten
# Neither of these runs a kernel: they name memory that is there, or ask for some.
_NO_KERNEL = frozenset((
    aten.detach, aten.alias, aten._unsafe_view, aten.lift_fresh, aten.empty, aten.empty_like, aten.empty_strided,
    aten.new_empty, aten.new_empty_strided, aten._local_scalar_dense, aten.set_, aten.resize_,
    aten.is_same_size, aten._has_compatible_shallow_copy_type,
))  # fmt: skip
# Their result's size is in their values: the CPU must know it before it goes on.
_WAITS_FOR_SIZE = frozenset((
    aten.nonzero, aten.masked_select, aten.unique_consecutive, aten._unique2, aten.unique_dim, aten.bincount,
    aten.equal, aten.is_nonzero,
))  # fmt: skip
_INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
_MAX_SHADOW = 1 << 24  # numbers of a shadow
_OWN_FILES = ("/torch/", "/gpu_simulation/", "/contextlib.py", "/functools.py")


@dataclass
class GpuCounts:
    """What was counted.

    Attributes:
        kernels: launched, by operation.
        product_bytes, other_bytes: read and written by matrix products (attention's too), and by all else.
        flops: of the products.
        waits: of the CPU for the GPU, by the line that asked.
        by_operation: bytes of each.
        live, peak: memory of tensors, bytes.
    """

    kernels: Counter[str] = field(default_factory=Counter)
    by_operation: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    product_bytes: int = 0
    other_bytes: int = 0
    flops: int = 0
    live: int = 0
    peak: int = 0

    def since(self, before: GpuCounts) -> GpuCounts:
        """What was added to an earlier copy."""
        return GpuCounts(
            self.kernels - before.kernels, self.by_operation - before.by_operation, self.waits - before.waits,
            self.product_bytes - before.product_bytes, self.other_bytes - before.other_bytes,
            self.flops - before.flops, self.live, self.peak,
        )  # fmt: skip

    def clear(self) -> None:
        """Forget all but the memory that is held."""
        self.kernels.clear(), self.by_operation.clear(), self.waits.clear()
        self.product_bytes = self.other_bytes = self.flops = 0
        self.peak = self.live


def touched_bytes(tensor: Tensor) -> int:
    """Bytes that one pass over a tensor moves: what is expanded lies there once."""
    number = tensor.element_size()
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        number *= size if stride else min(size, 1)
    return number


class SimulatedGpu(TorchDispatchMode):
    """Counts what runs on device cuda; to be entered inside a `FakeTensorMode`.

    Args:
        shadow_floats: compute all values on the CPU, not only whole numbers.
    """

    def __init__(self, *, shadow_floats: bool = False) -> None:
        super().__init__()
        self.counts = GpuCounts()
        self.shadow_floats = shadow_floats
        self.in_compiled_graph = False
        self._shadows = WeakIdKeyDictionary()
        self._storages: set[int] = set()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """True: torch.compile compiles although this mode is on, which it else would not."""
        return True

    # ------------------------------------------------------------------------------- tensors

    def upload(self, value: Tensor, device: str = "cuda") -> Tensor:
        """A tensor of the simulated GPU with the values of one on the CPU; not counted."""
        with disable_counting(self):
            fake = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
        self._remember(fake)
        self._keep(fake, value)
        return fake

    def _keep(self, fake: Tensor, value: Tensor) -> None:
        if self.shadow_floats or not value.is_floating_point():
            self._shadows[fake] = value

    def upload_module(self, module: nn.Module) -> None:
        """Move a module's parameters and buffers there, in place."""
        memo: dict[int, Tensor] = {}
        for part in module.modules():
            for tensors in (part._parameters, part._buffers):
                for name, tensor in tensors.items():
                    if tensor is None:
                        continue
                    if id(tensor) not in memo:
                        with _disable_current_modes():
                            value = tensor.detach()
                        moved = self.upload(value)
                        if isinstance(tensor, nn.Parameter):
                            moved = nn.Parameter(moved, tensor.requires_grad)
                            self._keep(moved, value)
                        memo[id(tensor)] = moved
                    tensors[name] = memo[id(tensor)]

    def value_of(self, tensor: Tensor) -> Tensor | None:
        """The values of a tensor, if they are known."""
        return self._shadows.get(tensor)

    def _remember(self, tensor: Tensor) -> None:
        """Count the memory behind a tensor until it is freed."""
        if tensor.device.type != "cuda":
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._storages:
            size = storage.nbytes()
            self._storages.add(key)
            self.counts.live += size
            self.counts.peak = max(self.counts.peak, self.counts.live)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.counts.live -= size

    # ------------------------------------------------------------------------------- operations

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket is aten._pin_memory:  # a driver's; here all of the host's memory will do
            return args[0]
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        _require_cuda_dtypes(func, args)
        self._count_wait(func, inputs, kwargs)
        if func._overloadpacket in _INDEXING:
            args = self._with_whole_numbers(args)
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        shadow, has_shadow = self._shadow_result(func, args, kwargs, inputs)
        result = self._fake_result(func, args, kwargs, shadow if has_shadow else None)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self._keep_shadows(func, args, inputs, outputs, shadow, has_shadow=has_shadow)
        for tensor in outputs:
            self._remember(tensor)
        self._count(func, args, kwargs, result, inputs, outputs)
        return result

    def _count(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any,
        inputs: list[Tensor], outputs: list[Tensor],
    ) -> None:  # fmt: skip
        packet, counts = func._overloadpacket, self.counts
        if func.is_view or packet in _NO_KERNEL or func.namespace not in ("aten", "quantized"):
            return
        if not any(tensor.device.type == "cuda" for tensor in (*inputs, *outputs)):
            return
        if packet in flop_registry:
            counts.flops += flop_registry[packet](*args, **kwargs, out_val=result)
        if self.in_compiled_graph:  # its kernels and bytes are inductor's
            return
        read = {id(tensor): touched_bytes(tensor) for tensor in inputs}
        moved = sum(read.values()) + sum(map(touched_bytes, outputs))
        counts.kernels[str(packet).removeprefix("aten.")] += 1
        counts.by_operation[str(packet).removeprefix("aten.")] += moved
        if packet in flop_registry:
            counts.product_bytes += moved
        else:
            counts.other_bytes += moved

    def _count_wait(self, func: Any, inputs: list[Tensor], kwargs: dict[str, Any]) -> None:
        packet = func._overloadpacket
        on_gpu = [tensor.device.type == "cuda" for tensor in inputs]
        waits = False
        if packet is aten._local_scalar_dense or packet in _WAITS_FOR_SIZE:
            waits = any(on_gpu)
        elif packet in _INDEXING:
            waits = any(t.dtype in (torch.bool, torch.uint8) and t.device.type == "cuda" for t in inputs[1:])
        elif (
            packet is aten.lift_fresh
        ):  # torch.tensor(…, device=cuda), a list as an index: out of memory not pinned
            waits = any(on_gpu)
        elif packet is aten._to_copy and inputs and not kwargs.get("non_blocking"):
            # From the GPU, or to it out of memory that is not pinned.
            waits = torch.device(kwargs.get("device") or inputs[0].device).type != inputs[0].device.type
        elif packet is aten.copy_ and len(on_gpu) > 1 and on_gpu[0] != on_gpu[1] and inputs[1].ndim:
            waits = not (kwargs.get("non_blocking") or False)
        if waits:
            self.counts.waits[f"{calling_line()} ({str(packet).removeprefix('aten.')})"] += 1

    # ------------------------------------------------------------------------------- values

    def _fake_result(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], shadow: Any) -> Any:
        packet = func._overloadpacket
        if packet is aten._local_scalar_dense:
            return shadow if shadow is not None else _plausible_number(args[0])
        if packet in (aten.equal, aten.is_nonzero) and args[0].device.type == "cuda":
            return shadow if shadow is not None else False
        if kwargs.get("generator") is not None and func._schema.is_mutable:
            return args[0]  # drawn in place, by a generator that FakeTensors cannot take
        try:
            return func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            if shadow is None:
                raise
            return tree_map(
                lambda value: (
                    torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=args[0].device)
                    if isinstance(value, Tensor)
                    else value
                ),
                shadow,
            )

    def _with_whole_numbers(self, args: Sequence[Any]) -> Sequence[Any]:
        """Arguments of an indexing operation; a mask becomes the places where it is true, as a GPU makes of it."""
        indices: list[Tensor | None] = []
        for index in args[1]:
            value = (
                self._shadows.get(index)
                if index is not None and index.dtype in (torch.bool, torch.uint8)
                else None
            )
            if value is None:
                indices.append(index)
                continue
            with _disable_current_modes():
                places = value.nonzero().unbind(1)
            indices += [self.upload(place.contiguous(), index.device.type) for place in places]
        return (args[0], indices, *args[2:])

    def _shadow_result(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], inputs: list[Tensor]
    ) -> tuple[Any, bool]:
        if func._overloadpacket is aten.lift_fresh and not isinstance(inputs[0], FakeTensor):
            with _disable_current_modes():  # the simulated GPU's memory is the host's
                return inputs[0].detach().cpu(), self.shadow_floats or not inputs[0].is_floating_point()
        known = [tensor in self._shadows for tensor in inputs]
        if not all(known) or (
            not inputs and not _makes_small_whole_numbers(func, args, kwargs, self.shadow_floats)
        ):
            return None, False
        if not self.shadow_floats and any(t.is_floating_point() and t.numel() > _MAX_SHADOW for t in inputs):
            return None, False
        own = {name: value for name, value in kwargs.items() if name not in ("pin_memory", "non_blocking")}
        if "device" in own:
            own["device"] = torch.device("cpu")
        values, own = tree_map(
            lambda leaf: self._shadows[leaf] if isinstance(leaf, Tensor) else leaf, (tuple(args), own)
        )
        values = tuple(torch.device("cpu") if isinstance(value, torch.device) else value for value in values)
        with _disable_current_modes(), torch.no_grad():
            if func._overloadpacket in (aten._softmax, aten._log_softmax) and values[2]:
                values = (values[0].float(), values[1], False)  # a CPU's kernel does not raise by itself
            return func(*values, **own), True

    def _keep_shadows(
        self, func: Any, args: Sequence[Any], inputs: list[Tensor], outputs: list[Tensor], shadow: Any,
        *, has_shadow: bool,
    ) -> None:  # fmt: skip
        if has_shadow:
            values = [leaf for leaf in tree_leaves(shadow) if isinstance(leaf, Tensor)]
            for fake, value in zip(outputs, values, strict=True):
                self._shadows[fake] = value
            return
        for tensor in outputs:  # written in place with values that are not known
            if any(tensor is other for other in inputs):
                self._shadows.pop(tensor, None)


def _makes_small_whole_numbers(func: Any, args: Sequence[Any], kwargs: dict[str, Any], floats: bool) -> bool:
    """Does an operation without tensors make some whose values are worth knowing?"""
    sizes = [number for number in tree_leaves(args) if isinstance(number, int)]
    product = 1
    for size in sizes:
        product *= max(1, abs(size))
    dtype = kwargs.get("dtype")
    whole = (dtype is not None and not dtype.is_floating_point) or func._overloadpacket is aten.arange
    return product <= _MAX_SHADOW and (floats or whole)


def _require_cuda_dtypes(func: Any, args: Sequence[Any]) -> None:
    """What CUDA's kernels refuse and neither a FakeTensor nor a CPU's kernel does.

    Raises:
        RuntimeError: as CUDA's kernel says it.
    """
    if (
        func._overloadpacket in (aten.native_layer_norm, aten.native_group_norm)
        and args[0].device.type == "cuda"
    ):
        weights = [arg for arg in args[1:4] if isinstance(arg, Tensor)]
        if any(weight.dtype != args[0].dtype for weight in weights):
            raise RuntimeError(f"expected scalar type {args[0].dtype} but found {weights[0].dtype}")


def _plausible_number(tensor: Tensor) -> bool | int | float:
    """For values that nobody knows: nothing ends early by them, and no loss is infinite."""
    return False if tensor.dtype is torch.bool else 1.0 if tensor.is_floating_point() else 1


def calling_line() -> str:
    """The innermost line outside of torch and of here, as package/module.py:function."""
    frame = sys._getframe(2)
    while frame.f_back is not None and any(part in frame.f_code.co_filename for part in _OWN_FILES):
        frame = frame.f_back
    parts = frame.f_code.co_filename.rsplit("/", 2)
    return f"{'/'.join(parts[-2:])}:{frame.f_code.co_name}"


@contextmanager
def disable_counting(gpu: SimulatedGpu) -> Iterator[None]:
    was, gpu.in_compiled_graph = gpu.in_compiled_graph, True
    try:
        yield
    finally:
        gpu.in_compiled_graph = was
