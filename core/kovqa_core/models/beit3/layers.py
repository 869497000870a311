"""The layers of BEiT-3: two sets of weights, one for image tokens and one for text tokens, around shared attention.

Shapes (models/family.py): B batch, P image tokens (class token first), T text tokens, N = P + T, D width,
H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kovqa_core.models.beit3.config import ModelDimensions
from kovqa_core.models.layer_norm import LayerNorm

LAYER_NORM_EPS = 1e-5  # of every LayerNorm
TokenStreams = list[Tensor]  # [image [B, P, D], text [B, T, D]], or one of the two


def fast_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`functional.linear`, [..., in] -> [..., out], by the fastest way there is.

    On a CPU many rows at once go through a 1×1 convolution: torch lets oneDNN choose the layout of a
    convolution's weights, worth 2× in fp32 and 1.2× in bf16 on AMD's processors. Not where gradients in
    bf16 are needed: there the convolution's are slower.
    """
    # A compiled layer knows no number of rows: the compiler lays out weights itself.
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return functional.linear(x, weight, bias)
    rows = x.numel() // x.shape[-1]
    exact = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if rows < 64 or (torch.is_grad_enabled() and not exact):
        return functional.linear(x, weight, bias)
    pixels = x.reshape(1, rows, 1, -1).permute(0, 3, 1, 2)  # rows as pixels of one image, [1, in, rows, 1]
    return (
        functional.conv2d(pixels, weight[..., None, None], bias).permute(0, 2, 3, 1).view(*x.shape[:-1], -1)
    )


class FastLinear(nn.Linear):
    """A linear layer by way of `fast_linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return fast_linear(x, self.weight, self.bias)


class ModalityBranch(nn.Module):
    """One modality's weights of one layer."""

    def __init__(self, size: ModelDimensions) -> None:
        super().__init__()
        width, ffn = size.embed_dim, size.ffn_dim
        self.norm_attn = LayerNorm(width, LAYER_NORM_EPS)
        # Rows of its weight [3 D, D]: queries, keys, values; `pretrained_weights` joins and splits them so.
        self.qkv = FastLinear(width, 3 * width)
        self.inner_norm_attn = LayerNorm(width, LAYER_NORM_EPS)
        self.out = FastLinear(width, width)
        self.norm_ffn = LayerNorm(width, LAYER_NORM_EPS)
        self.fc1 = FastLinear(width, ffn)
        self.inner_norm_ffn = LayerNorm(ffn, LAYER_NORM_EPS)
        self.fc2 = FastLinear(ffn, width)

    def after_attention(self, x: Tensor, attended: Tensor, keep: Tensor | None) -> Tensor:
        """Output projection and feed-forward part, each with its residual.

        Args:
            x: [B, n, D], one stream: n is P or T.
            attended: [B, n, D], what attention gave for its tokens.
            keep: [2, B, 1, 1] drop path factors of the two residual branches, or None.
        """
        # Sub-LN: normed once more before each projection that goes back to the residual stream.
        branch = self.out(self.inner_norm_attn(attended))
        x = add_branch(x, branch, None if keep is None else keep[0])
        branch = self.fc2(self.inner_norm_ffn(functional.gelu(self.fc1(self.norm_ffn(x)))))
        return add_branch(x, branch, None if keep is None else keep[1])


def add_branch(x: Tensor, branch: Tensor, keep: Tensor | None) -> Tensor:
    """The residual stream with what a branch adds to it, [B, n, D], in the stream's dtype.

    Args:
        x: [B, n, D], the stream.
        branch: [B, n, D]; in 16 bits under autocast.
        keep: [B, 1, 1] drop path factors, or None.
    """
    if keep is None:
        return x + branch
    if not x.is_cuda or torch.compiler.is_compiling():
        return x + branch * keep
    # One kernel reads 16 bits and adds in 32: no product of branch and factor goes to memory. Autocast off: it
    # would raise the branch first. Not on a CPU, where the last bit may differ.
    with torch.autocast("cuda", enabled=False):
        return torch.addcmul(x, branch, keep)


class MultiwayLayer(nn.Module):
    """Attention over both streams, then each stream's own feed-forward part."""

    def __init__(self, size: ModelDimensions) -> None:
        super().__init__()
        self.heads = size.num_heads
        self.vision = ModalityBranch(size)
        self.text = ModalityBranch(size)

    def branches(self, streams: TokenStreams, first: str) -> list[ModalityBranch]:
        """The weights that belong to the streams."""
        return [self.vision, self.text][: len(streams)] if first == "vision" else [self.text]

    def forward(
        self, streams: TokenStreams, mask: Tensor | None, keep: Tensor | None, first: str = "vision"
    ) -> TokenStreams:
        """All tokens of all streams.

        Args:
            streams: what the layer before gave.
            mask: [B, 1, 1 or N, N], added to scores: 0 where a query may look, else -inf; None: everywhere.
            keep: [2, B, 1, 1] drop path factors, or None.
            first: modality of the first stream.
        """
        branches = self.branches(streams, first)
        # Each stream by its own weights, [B, P, 3 D] and [B, T, 3 D]; joined for attention alone, [B, N, 3 D].
        qkv = [b.qkv(b.norm_attn(x)) for b, x in zip(branches, streams, strict=True)]
        q, k, v = self.split_heads(torch.cat(qkv, 1) if len(qkv) > 1 else qkv[0], 3)
        attended = self.attend(q, k, v, mask).split([x.shape[1] for x in streams], 1)
        return [b.after_attention(x, a, keep) for b, x, a in zip(branches, streams, attended, strict=True)]

    def class_token(self, streams: TokenStreams, mask: Tensor | None, keep: Tensor | None) -> Tensor:
        """The class token alone, [B, 1, D]: what `forward` would give at position 0."""
        width = streams[0].shape[-1]
        normed = [b.norm_attn(x) for b, x in zip(self.branches(streams, "vision"), streams, strict=True)]
        # Rows of the joined weight [3 D, D]: queries first, then keys and values.
        qkv = self.vision.qkv
        # One query, but keys and values of all tokens: position 0 still looks everywhere.
        query = fast_linear(normed[0][:, :1], qkv.weight[:width], qkv.bias[:width])
        keys_values = [
            fast_linear(x, b.qkv.weight[width:], b.qkv.bias[width:])
            for b, x in zip(self.branches(streams, "vision"), normed, strict=True)
        ]
        k, v = self.split_heads(torch.cat(keys_values, 1), 2)
        attended = self.attend(self.split_heads(query, 1)[0], k, v, mask)
        return self.vision.after_attention(streams[0][:, :1], attended, keep)

    def image_tokens(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Image tokens that see image tokens only, as captioning has it.

        Args:
            x: [B, P, D].
            keep: [2, B, 1, 1] drop path factors, or None.

        Returns:
            [B, P, D], and the layer's keys and values, each [B, H, P, D/H].
        """
        branch = self.vision
        q, k, v = self.split_heads(branch.qkv(branch.norm_attn(x)), 3)
        return branch.after_attention(x, self.attend(q, k, v, None), keep), k, v

    def text_tokens(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, keep: Tensor | None
    ) -> Tensor:
        """Text tokens that see an image's keys and values and, as the mask says, each other.

        Args:
            x: [B, T, D].
            keys, values: [B, H, P, D/H], of `image_tokens`.
            mask: [B or 1, 1, T, P + T], added to scores.
            keep: [2, B, 1, 1] drop path factors, or None.
        """
        branch = self.text
        q, k, v = self.split_heads(branch.qkv(branch.norm_attn(x)), 3)
        attended = self.attend(q, torch.cat([keys, k], 2), torch.cat([values, v], 2), mask)
        return branch.after_attention(x, attended, keep)

    def split_heads(self, x: Tensor, count: int) -> tuple[Tensor, ...]:
        """[B, n, count · D] -> count × [B, H, n, D/H]."""
        batch, length, _ = x.shape
        return x.view(batch, length, count, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Scaled dot-product attention -> [B, n, D].

        Args:
            q: [B, H, n, D/H].
            k, v: [B, H, N, D/H].
            mask: [B, 1, 1 or n, N], added to scores: 0 where a query may look, else -inf; None: everywhere.
        """
        if q.is_cuda or q.dtype == torch.float32:
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:  # torch's fused kernel for CPUs is slow in 16 bits: plain products are faster
            scores = q * q.shape[-1] ** -0.5 @ k.mT  # [B, H, n, N]
            # In place: the backward pass of a product needs what it read, not what it gave.
            scores = scores if mask is None else scores.add_(mask)
            attended = scores.softmax(-1) @ v
        return attended.transpose(1, 2).flatten(2)
