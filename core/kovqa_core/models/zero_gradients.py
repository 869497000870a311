"""Gradients of 0 for parameters that a loss does not reach: DDP waits for one of each that learns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def zero_of(parameters: Sequence[nn.Parameter], device: torch.device | None = None) -> Tensor:
    """0 as a function of these parameters, in fp32.

    Args:
        parameters: that are to get a gradient of 0.
        device: where they are; None: where the first one is.
    """
    total = torch.zeros((), device=device or parameters[0].device)
    for parameter in parameters:
        if parameter.numel():
            # Of a sharded parameter (DTensor) this process's own shard: the sum of the whole would be a
            # collective, and a process without a shard would not take part in it.
            to_local = getattr(parameter, "to_local", None)
            shard: Tensor = parameter if to_local is None else to_local()
            total = total + shard.sum(dtype=torch.float32)
    return total * 0.0


def parameters_of_graph(loss: Tensor) -> set[int]:
    """The ids of the leaves that a loss's gradient reaches, by autograd's own graph; no number is computed."""
    seen, leaves = set(), set()
    nodes = [loss.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        nodes += [next_node for next_node, _ in node.next_functions]
    return leaves
