"""LayerNorm that leaves 16-bit inputs in 16 bits under a GPU's autocast."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm`, with a GPU's memory traffic spared where its input is in 16 bits.

    CUDA's autocast would raise such an input to fp32, norm it, and lower the result again for the product
    that follows: 20 bytes moved for each number instead of 4. The kernel computes mean, variance and sums in
    fp32 whatever it reads, so only weight and bias lose bits, as every product's weights do. On fp32 inputs
    (the residual stream), without autocast, and on a CPU (whose autocast leaves the input as it is), it is
    `nn.LayerNorm`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        if not reads_16_bits(input):
            return super().forward(input)
        # Autocast off: it would raise the operands here too.
        with torch.autocast(input.device.type, enabled=False):
            weight, bias = (None if t is None else t.to(input.dtype) for t in (self.weight, self.bias))
            return functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def reads_16_bits(input: Tensor) -> bool:
    """Is this an input that CUDA's autocast would raise to fp32 for a LayerNorm?"""
    return (
        input.is_cuda and input.dtype in (torch.bfloat16, torch.float16) and torch.is_autocast_enabled("cuda")
    )
