"""The floor of a step: the matrix products it cannot do without, alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from kovqa_core.models.beit3.network import Beit3VqaNet
from torch import Tensor


@dataclass(frozen=True)
class Product:
    """`left [.., m, k] @ right [.., k, n]`, and its two products backward."""

    left: Tensor
    right: Tensor
    left_grad: bool = True

    @property
    def flops(self) -> int:
        """Of the forward product."""
        return 2 * self.left.numel() * self.right.shape[-1]


class Floor:
    """The matrix products of a step, and nothing else.

    Weights are the network's own, so they come from memory as they do in a step; activations
    are one buffer per shape; results are written into one buffer per shape.
    """

    def __init__(self, net: Beit3VqaNet, image: Tensor, text: int, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.device = image.device
        self.buffers: dict[tuple[int, ...], Tensor] = {}
        self.results: dict[tuple[int, ...], Tensor] = {}
        self.products = list(self._products(net, len(image), text))

    def _buffer(self, *shape: int) -> Tensor:
        if shape not in self.buffers:
            self.buffers[shape] = torch.randn(shape, device=self.device).to(self.dtype)
        return self.buffers[shape]

    def _result(self, *shape: int) -> Tensor:
        if shape not in self.results:
            self.results[shape] = torch.empty(shape, device=self.device, dtype=self.dtype)
        return self.results[shape]

    def _linear(self, rows: int, linear: Any, part: slice = slice(None), left_grad: bool = True) -> Product:
        weight = linear.weight.detach()[part].to(self.dtype)
        return Product(self._buffer(rows, weight.shape[1]), weight.t(), left_grad)

    def _products(self, net: Beit3VqaNet, batch: int, text: int) -> Iterator[Product]:
        encoder = net.encoder
        patches = len(encoder.vision_position_embed) - 3
        width, heads = encoder.patch_embed.out_features, encoder.layers[0].heads
        streams = {"vision": batch * (patches + 1), "text": batch * text}
        tokens = patches + 1 + text
        *body, last = encoder.layers

        def attention(queries: int) -> Iterator[Product]:
            pairs, size = batch * heads, width // heads
            yield Product(self._buffer(pairs, queries, size), self._buffer(pairs, size, tokens))
            yield Product(self._buffer(pairs, queries, tokens), self._buffer(pairs, tokens, size))

        yield self._linear(batch * patches, encoder.patch_embed, left_grad=False)
        for layer in body:
            yield from attention(tokens)
            for name, rows in streams.items():
                branch = getattr(layer, name)
                for linear in (branch.qkv, branch.out, branch.fc1, branch.fc2):
                    yield self._linear(rows, linear)
        yield from attention(1)
        yield self._linear(batch, last.vision.qkv, slice(width))
        for name, rows in streams.items():
            yield self._linear(rows, getattr(last, name).qkv, slice(width, None))
        branch = last.vision
        for linear in (branch.out, branch.fc1, branch.fc2, net.pooler["dense"], net.head[0], net.head[3]):
            yield self._linear(batch, linear)

    def _multiply(self, left: Tensor, right: Tensor) -> None:
        torch.matmul(left, right, out=self._result(*left.shape[:-1], right.shape[-1]))

    @torch.no_grad()
    def forward(self, _: int = 0) -> None:
        """The products of a forward pass."""
        for product in self.products:
            self._multiply(product.left, product.right)

    @torch.no_grad()
    def step(self, _: int = 0) -> None:
        """The products of a forward and a backward pass."""
        self.forward()
        for product in reversed(self.products):
            gradient = self._buffer(*product.left.shape[:-1], product.right.shape[-1])
            if product.left_grad:
                self._multiply(gradient, product.right.mT)
            if product.right.dim() == 2:  # as a weight is stored, [out, in]
                self._multiply(gradient.mT, product.left)
            else:
                self._multiply(product.left.mT, gradient)

    def flops(self, train: bool) -> int:
        """Operations of a forward pass or of a training step."""
        if not train:
            return sum(p.flops for p in self.products)
        return sum(p.flops * (3 if p.left_grad else 2) for p in self.products)
