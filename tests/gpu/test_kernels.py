"""Checks 4 and 5: what learns and answers multiplies in 16 bits, and attends by fused kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tests.conftest import Small
from tests.gpu.devices import FEW, Built, TinyVlm, autocast_on, build, on_devices
from tests.models.test_contract import CASES

FUSED = "_scaled_dot_product_"  # …flash_attention, …efficient_attention, …cudnn_attention; math leaves none


class ProductCounter(TorchDispatchMode):
    """FLOPs of products by the dtype of what they read, and fused attention kernels by name.

    Counted as torch.utils.flop_counter does, which tells no dtypes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[torch.dtype] = Counter()
        self.attention: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            dtype = next(arg.dtype for arg in args if isinstance(arg, torch.Tensor))
            self.flops[dtype] += flop_registry[packet](*args, **(kwargs or {}), out_val=result)
        name = str(packet).removeprefix("aten.")
        if name.startswith(FUSED) and "backward" not in name:
            self.attention[name] += 1
        return result

    def share_of_16_bits(self) -> float:
        """Of all FLOPs of products."""
        half = self.flops[torch.bfloat16] + self.flops[torch.float16]
        return half / sum(self.flops.values())


class AttentionCalls(TorchFunctionMode):
    """How often `scaled_dot_product_attention` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls += func is torch.nn.functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


def learn(built: Built) -> None:
    built.model.train()(built.learn, 0)["loss"].backward()


def answer(built: Built) -> None:
    with torch.no_grad():  # inference mode would hide nothing, but its tensors could not be used again
        built.model.eval().answer(built.ask)


@pytest.mark.parametrize(
    ("device", "case", "do"),
    on_devices(
        [(case, do) for case in FEW for do in ("learn", "answer")],
        [(case, do) for case in CASES for do in ("learn", "answer")],
    ),
)
def test_products_are_in_16_bits(
    small: Small, tiny_vlm: TinyVlm, device: torch.device, case: str, do: str
) -> None:
    """All but what must not be: positions of a rotary embedding, and the like."""
    built = build(case, small, tiny_vlm, device)
    work: Callable[[Built], None] = {"learn": learn, "answer": answer}[do]
    with autocast_on(device, torch.bfloat16), ProductCounter() as counter:
        work(built)
    assert counter.share_of_16_bits() >= 0.95, counter.flops


@pytest.mark.parametrize(
    ("device", "case", "dtype"),
    on_devices(
        [(case, torch.float32) for case in FEW],
        [(case, dtype) for case in CASES for dtype in (torch.float32, torch.bfloat16, torch.float16)],
    ),
)
def test_attention_is_fused(
    small: Small, tiny_vlm: TinyVlm, device: torch.device, case: str, dtype: torch.dtype
) -> None:
    """Each call of it, forward: torch falls back to plain products in silence, where no kernel takes the shapes."""
    built = build(case, small, tiny_vlm, device)
    with autocast_on(device, dtype), AttentionCalls() as asked, ProductCounter() as counter:
        learn(built)
        answer(built)
    assert asked.calls > 0 or case.startswith("fusion")
    assert sum(counter.attention.values()) >= asked.calls, counter.attention
