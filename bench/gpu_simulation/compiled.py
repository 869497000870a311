"""Bytes of compiled code: the inputs and outputs of the kernels that inductor would generate, none of which is built.

`torch.compile` runs up to the scheduler, which knows what is fused and what each kernel reads and writes
(`GraphLowering.count_bytes`). Then the graph itself runs on FakeTensors, uncounted, and the kernels' bytes are added
at every call. Written against torch 2.13.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._inductor import compile_fx as inductor
from torch._inductor.debug import DebugContext
from torch._inductor.graph import GraphLowering
from torch._inductor.utils import BoxedBool
from torch._inductor.virtualized import V
from torch.utils._python_dispatch import _disable_current_modes

from bench.gpu_simulation.counting import SimulatedGpu, disable_counting

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "attention")


@dataclass(frozen=True)
class GraphCounts:
    """One compiled graph: its kernels, and the bytes of a call."""

    kernels: int
    product_bytes: int
    other_bytes: int


class _Scheduled(Exception):
    """Raised where inductor would begin to write code."""


def _count_graph(graph: GraphLowering) -> GraphCounts:
    kernels = product = other = 0
    with V.set_graph_handler(graph):
        for node in graph.scheduler.nodes:
            moved = int(node.get_read_write_buffers_sizes())
            name = str(
                getattr(node.node, "python_kernel_name", None) or getattr(node.node, "op_overload", "")
            )
            if name and any(part in name for part in _PRODUCTS):
                product += moved
            else:
                other += moved
            kernels += type(node).__name__ != "NopKernelSchedulerNode" and moved > 0
    return GraphCounts(kernels, product, other)


@contextmanager
def counted_compilation(gpu: SimulatedGpu) -> Iterator[list[GraphCounts]]:
    """What `torch.compile` compiles inside is counted, not built; the list gets every graph, forward and backward."""
    graphs: list[GraphCounts] = []

    def inner_compile(module: Any, inputs: Sequence[Any], **options: Any) -> Callable[..., Any]:
        as_it_is = copy.deepcopy(module)
        lowered: list[GraphLowering] = []

        def stop(graph: GraphLowering) -> None:
            graph._update_scheduler()
            lowered.append(graph)
            raise _Scheduled

        options.setdefault("cudagraphs", BoxedBool(False))
        codegen, GraphLowering.codegen = GraphLowering.codegen, stop  # type: ignore[method-assign,assignment]
        try:
            with DebugContext(), _disable_current_modes():
                inductor.fx_codegen_and_compile(module, inputs, inputs_to_check=(), **options)
        except Exception:
            if not lowered:
                raise
        finally:
            GraphLowering.codegen = codegen  # type: ignore[method-assign]
        counted = _count_graph(lowered[0])
        graphs.append(counted)

        def call(arguments: list[Any]) -> Any:
            gpu.counts.kernels["compiled"] += counted.kernels
            gpu.counts.by_operation["compiled"] += counted.other_bytes
            gpu.counts.product_bytes += counted.product_bytes
            gpu.counts.other_bytes += counted.other_bytes
            values = list(arguments)
            arguments.clear()
            with disable_counting(gpu):
                return as_it_is(*values)

        call._boxed_call = True  # type: ignore[attr-defined]
        return call

    original = inductor.compile_fx

    def compile_fx(module: Any, inputs: Sequence[Any], **options: Any) -> Any:
        return original(module, inputs, **{**options, "inner_compile": inner_compile})

    inductor.compile_fx = compile_fx  # type: ignore[assignment]
    try:
        torch._dynamo.reset()
        yield graphs
    finally:
        inductor.compile_fx = original
        torch._dynamo.reset()
