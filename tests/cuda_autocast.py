"""CUDA's autocast on a CPU: what a GPU computes in fp32 under autocast is computed in fp32 here too.

A CPU's autocast makes products in 16 bits as a GPU's does, but leaves everything else as it comes. So an
operation that refuses two dtypes (lerp, in-place copies by index, …) may pass on a CPU and fail on a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

# As torch names them (aten/src/ATen/autocast_mode.h, AT_FORALL_FP32 and AT_FORALL_FP32_SET_OPT_DTYPE).
RAISED = frozenset((
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt",
    "sinh", "tan", "pow", "softplus", "logsumexp", "prod", "softmax", "log_softmax", "cumprod", "cumsum", "sum",
))  # fmt: skip
_NEEDS_MORE = frozenset((  # of several arguments, or composed of the above
    "__pow__", "layer_norm", "group_norm", "nll_loss", "kl_div", "l1_loss", "mse_loss", "smooth_l1_loss",
    "cross_entropy", "binary_cross_entropy_with_logits", "cosine_similarity", "norm", "cdist",
))  # fmt: skip
_HALF = (torch.float16, torch.bfloat16)


class _RaiseToFp32(TorchFunctionMode):
    """Runs the operations that CUDA's autocast raises on fp32 copies of their 16-bit tensors."""

    def __torch_function__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name not in RAISED | _NEEDS_MORE or not torch.is_autocast_enabled("cpu") or kwargs.get("dtype"):
            return func(*args, **kwargs)
        args, kwargs = tree_map(_raised, (tuple(args), kwargs))
        with torch.autocast("cpu", enabled=False):
            return func(*args, **kwargs)


def _raised(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype in _HALF else value


class Waits(TorchFunctionMode):
    """Notes what the CPU would wait for a GPU for: values that become Python's, and shapes that depend on values."""

    _CALLS = frozenset((
        "item", "tolist", "cpu", "numpy", "nonzero", "masked_select", "unique", "equal", "allclose",
        "__bool__", "__int__", "__float__", "__index__", "__contains__",
    ))  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_function__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in self._CALLS:
            self.calls.append(name)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def cuda_autocast(dtype: torch.dtype) -> Iterator[None]:
    """`torch.autocast("cuda", dtype)` for tensors of the CPU."""
    with torch.autocast("cpu", dtype), _RaiseToFp32():
        yield
