"""The BEiT-3 encoder: image patches and question tokens in one transformer.

Every layer has two sets of weights ("multiway"): one for image tokens, one for text tokens. Attention is
shared: the queries of both see the keys of both. Pre-norm, with a second LayerNorm inside attention and
inside the feed-forward part ("sub-LN", Magneto, arXiv 2210.06423). Source of all facts: arXiv 2208.10442
and its published code.

Shapes (models/family.py): B batch, P image tokens (class token first), T text tokens, N = P + T, D width,
H heads, C classes, S side of the image.

What makes it fast, without changing a number: q, k and v are one product; patches are taken with a view,
not a convolution; both streams stay separate tensors, so no slice is copied; text is as long as the longest
question of the batch; and where only the class token is read, the last layer computes queries, output and
feed-forward for it alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from kovqa_core.models.beit3.config import POSITION_OFFSET, TEXT_POSITIONS, ModelConfig, ModelDimensions

LAYER_NORM_EPS = 1e-5  # of every LayerNorm
TokenStreams = list[Tensor]  # [image [B, P, D], text [B, T, D]], or one of the two


def fast_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`functional.linear`, [..., in] -> [..., out], by the fastest way there is.

    On a CPU many rows at once go through a 1×1 convolution: torch lets oneDNN choose the layout of a
    convolution's weights, worth 2× in fp32 and 1.2× in bf16 on AMD's processors. Not where gradients in
    bf16 are needed: there the convolution's are slower.
    """
    rows = x.numel() // x.shape[-1]
    exact = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if x.device.type != "cpu" or rows < 64 or (torch.is_grad_enabled() and not exact):
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
        self.norm_attn = nn.LayerNorm(width, LAYER_NORM_EPS)
        # Rows of its weight [3 D, D]: queries, keys, values; `pretrained_weights` joins and splits them so.
        self.qkv = FastLinear(width, 3 * width)
        self.inner_norm_attn = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.out = FastLinear(width, width)
        self.norm_ffn = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.fc1 = FastLinear(width, ffn)
        self.inner_norm_ffn = nn.LayerNorm(ffn, LAYER_NORM_EPS)
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
        x = x + (branch if keep is None else branch * keep[0])
        branch = self.fc2(self.inner_norm_ffn(functional.gelu(self.fc1(self.norm_ffn(x)))))
        return x + (branch if keep is None else branch * keep[1])


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
            mask: [B, 1, 1 or N, N], True where a query may look; None: everywhere.
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

    def split_heads(self, x: Tensor, count: int) -> tuple[Tensor, ...]:
        """[B, n, count · D] -> count × [B, H, n, D/H]."""
        batch, length, _ = x.shape
        return x.view(batch, length, count, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Scaled dot-product attention -> [B, n, D].

        Args:
            q: [B, H, n, D/H].
            k, v: [B, H, N, D/H].
            mask: [B, 1, 1 or n, N], True where a query may look; None: everywhere.
        """
        if q.is_cuda or q.dtype == torch.float32:
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:  # torch's fused kernel for CPUs is slow in 16 bits: plain products are faster
            scores = q * q.shape[-1] ** -0.5 @ k.mT  # [B, H, n, N]
            # In place: the backward pass of a product needs what it read, not what it gave.
            scores = scores if mask is None else scores.masked_fill_(~mask, -math.inf)
            attended = scores.softmax(-1) @ v
        return attended.transpose(1, 2).flatten(2)


class MultiwayEncoder(nn.Module):
    """Embeddings, layers and, for tasks that read every token, the final norm."""

    def __init__(self, config: ModelConfig, *, final_norm: bool) -> None:
        """
        Args:
            config: dimensions; `vocab_size` must be set.
            final_norm: LayerNorm after the last layer (captioning yes, VQA no).
        """
        super().__init__()
        size, width = config.dimensions, config.dimensions.embed_dim
        if config.vocab_size is None:
            raise ValueError("config.vocab_size must be set before a network is made")
        self.patch = config.patch_size
        self.activation_checkpointing = False
        self.text_embed = nn.Embedding(config.vocab_size, width)
        self.mask_token_embed = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_token_embed = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_embed = FastLinear(3 * config.patch_size**2, width)
        self.vision_position_embed = nn.Parameter(
            torch.empty(config.num_patches + 1 + POSITION_OFFSET, width)
        )
        self.text_position_embed = nn.Parameter(torch.empty(TEXT_POSITIONS, width))
        self.layers = nn.ModuleList(MultiwayLayer(size) for _ in range(size.num_layers))
        self.norm = (
            nn.ModuleDict(
                {"vision": nn.LayerNorm(width, LAYER_NORM_EPS), "text": nn.LayerNorm(width, LAYER_NORM_EPS)}
            )
            if final_norm
            else None
        )

    def embed_image(self, image: Tensor, masked: Tensor | None = None) -> Tensor:
        """Image -> [B, P, D].

        Args:
            image: [B, 3, S, S] RGB, normalised to -1…1.
            masked: [B, P - 1], True where the mask token replaces a patch.
        """
        batch, channels, side, _ = image.shape
        grid = side // self.patch
        # A convolution whose stride is its size is one product over patches; its weights are [D, 3, patch, patch]
        # in the original's order, so a patch is flattened as (channel, row, column).
        patches = image.view(batch, channels, grid, self.patch, grid, self.patch)
        x = self.patch_embed(patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, grid * grid, -1))
        if masked is not None:
            # Cast: beside a parameter in fp32, torch.where would raise every patch to fp32.
            x = torch.where(masked.unsqueeze(-1), self.mask_token_embed.to(x.dtype), x)
        cls = self.cls_token_embed.expand(batch, -1, -1)
        positions = self.vision_position_embed[POSITION_OFFSET:]
        return torch.cat([cls + positions[:1], x + positions[1:]], 1)

    def embed_text(self, tokens: Tensor, padding: Tensor | None) -> Tensor:
        """Token ids [B, T] -> [B, T, D]; padded positions (True in `padding`) become 0."""
        x = self.text_embed(tokens)
        x = x + self.text_position_embed[POSITION_OFFSET : POSITION_OFFSET + tokens.shape[1]]
        return x if padding is None else x.masked_fill(padding.unsqueeze(-1), 0.0)

    def embed(
        self, image: Tensor | None, tokens: Tensor | None, padding: Tensor | None, masked: Tensor | None
    ) -> tuple[TokenStreams, Tensor | None, str]:
        """Streams, attention mask [B, 1, 1, N] (True = visible) and the first stream's modality."""
        streams: TokenStreams = [] if image is None else [self.embed_image(image, masked)]
        mask = None
        if tokens is not None:
            streams.append(self.embed_text(tokens, padding))
            if padding is not None:
                # Image tokens are never padding. One row of keys for all heads and queries: [B, N] -> [B, 1, 1, N].
                image_tokens = padding.new_zeros(len(padding), 0 if image is None else streams[0].shape[1])
                mask = ~torch.cat([image_tokens, padding], 1)[:, None, None]
        return streams, mask, "text" if image is None else "vision"

    def forward(
        self,
        image: Tensor | None = None,
        tokens: Tensor | None = None,
        padding: Tensor | None = None,
        masked: Tensor | None = None,
        keep: Tensor | None = None,
        watch: Callable[[TokenStreams], object] | None = None,
    ) -> TokenStreams:
        """Every token of image and text, one of which may be None.

        Args:
            image: [B, 3, S, S], normalised.
            tokens: [B, T] ids.
            padding: [B, T], True = padding; None: no padding.
            masked: [B, P - 1], patches to hide.
            keep: [layers, 2, B, 1, 1] drop path factors, or None.
            watch: called with the streams before the first and after every layer.
        """
        streams, mask, first = self.embed(image, tokens, padding, masked)
        watch = watch or (lambda _: None)
        watch(streams)
        for i, layer in enumerate(self.layers):
            streams = self._run(layer, streams, mask, None if keep is None else keep[i], first)
            watch(streams)
        if self.norm is not None:
            # A bool as a number: without an image the only stream is the text, whose norm is the second.
            norms = [self.norm[name] for name in ("vision", "text")][first == "text" :]
            streams = [norm(x) for norm, x in zip(norms, streams, strict=False)]
        return streams

    def class_token(
        self, image: Tensor, tokens: Tensor, padding: Tensor | None, keep: Tensor | None
    ) -> Tensor:
        """The class token after the last layer, [B, D]: what VQA reads, and no more work than that."""
        streams, mask, first = self.embed(image, tokens, padding, None)
        *body, last = cast("list[MultiwayLayer]", list(self.layers))
        for i, layer in enumerate(body):
            streams = self._run(layer, streams, mask, None if keep is None else keep[i], first)
        return last.class_token(streams, mask, None if keep is None else keep[-1]).squeeze(1)

    def _run(
        self, layer: nn.Module, streams: TokenStreams, mask: Tensor | None, keep: Tensor | None, first: str
    ) -> TokenStreams:
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, streams, mask, keep, first, use_reentrant=False)
        return layer(streams, mask, keep, first)


class Beit3VqaNet(nn.Module):
    """Encoder, pooler and classifier over the answer list."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.dimensions.embed_dim
        if config.num_classes is None:
            raise ValueError("config.num_classes must be set before a VQA network is made")
        self.encoder = MultiwayEncoder(config, final_norm=False)
        self.pooler = nn.ModuleDict(
            {"norm": nn.LayerNorm(width, LAYER_NORM_EPS), "dense": FastLinear(width, width)}
        )
        self.head = nn.Sequential(
            FastLinear(width, 2 * width), nn.LayerNorm(2 * width, LAYER_NORM_EPS), nn.GELU(),
            FastLinear(2 * width, config.num_classes),
        )  # fmt: skip
        self.drop_path = drop_path_rates(config.drop_path, config.dimensions.num_layers)
        for parameter in self.unused_parameters():
            parameter.requires_grad_(False)

    def unused_parameters(self) -> list[nn.Parameter]:
        """Weights that no answer depends on: the mask token, and the text branch after the last attention.

        The original computes them, gives them gradients of exactly zero and lets weight decay
        shrink them; here they do not learn.
        """
        last = cast(MultiwayLayer, self.encoder.layers[-1]).text
        unused: tuple[nn.Module, ...] = (
            last.inner_norm_attn,
            last.out,
            last.norm_ffn,
            last.fc1,
            last.inner_norm_ffn,
            last.fc2,
        )
        return [self.encoder.mask_token_embed, *(p for module in unused for p in module.parameters())]

    def pooled(
        self, image: Tensor, tokens: Tensor, padding: Tensor | None, noise: Tensor | None = None
    ) -> Tensor:
        """[B, D], tanh of the pooled class token."""
        keep = None if noise is None or not any(self.drop_path) else drop_path_factors(noise, self.drop_path)
        cls = self.encoder.class_token(image, tokens, padding, keep)
        return torch.tanh(self.pooler["dense"](self.pooler["norm"](cls)))

    def forward(
        self, image: Tensor, tokens: Tensor, padding: Tensor | None, noise: Tensor | None = None
    ) -> Tensor:
        """Logits [B, C].

        Args:
            image: [B, 3, S, S], normalised.
            tokens: [B, T] ids.
            padding: [B, T], True = padding, or None.
            noise: [B, layers, 2] uniform draws in 0…1 that decide drop path; None: keep all.
        """
        return self.head(self.pooled(image, tokens, padding, noise))


def drop_path_rates(rate: float, layers: int) -> list[float]:
    """Probability that a layer's residual branch is dropped: from 0 to `rate` in equal steps."""
    return [i * rate / max(1, layers - 1) for i in range(layers)]


def drop_path_factors(noise: Tensor, rates: list[float]) -> Tensor:
    """Drop path (stochastic depth, arXiv 1603.09382): factors of residual branches.

    The draws come with the batch instead of from torch's generator, so that they belong to the example
    whatever process, micro-batch or resumed run it is in.

    Args:
        noise: [B, layers, 2], uniform in 0…1; a layer has two branches.
        rates: of every layer.

    Returns:
        [layers, 2, B, 1, 1]: 0, or 1 / probability of staying, so that the expectation stays.
    """
    limits = torch.tensor(rates, device=noise.device).view(1, -1, 1)
    keep = (noise >= limits) / (1 - limits)  # [B, layers, 2]
    return keep.permute(1, 2, 0)[..., None, None]


# Standard deviations for training from nothing, found on small models: patches and their positions begin
# large beside what the first layers add; else nothing is learned about the image for thousands of steps.
PATCH_STD, POSITION_STD, TEXT_STD = 0.4, 6.0, 0.05


def init_weights(net: nn.Module, generator: torch.Generator) -> None:
    """New weights for training from nothing.

    | weights | values |
    |---|---|
    | Linear weights | normal, std 1/sqrt(inputs), truncated at 2 std |
    | Linear biases, class and mask tokens | 0; of the answers: the odds of one in C |
    | LayerNorm | 1 and 0 |
    | patch projection | normal, std PATCH_STD |
    | image positions; text positions and text table | normal, std POSITION_STD; TEXT_STD |

    The original draws every Linear with std 0.02 and positions from N(0, 1); that is meant
    for weights that are loaded over it, not for learning from nothing.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear):
            std = module.in_features**-0.5
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for encoder in (module for module in net.modules() if isinstance(module, MultiwayEncoder)):
        nn.init.normal_(encoder.patch_embed.weight, std=PATCH_STD, generator=generator)
        nn.init.normal_(encoder.vision_position_embed, std=POSITION_STD, generator=generator)
        for table in (encoder.text_embed.weight, encoder.text_position_embed):
            nn.init.normal_(table, std=TEXT_STD, generator=generator)
        nn.init.zeros_(encoder.cls_token_embed)
        nn.init.zeros_(encoder.mask_token_embed)
    if isinstance(net, Beit3VqaNet):
        answer = cast(nn.Linear, net.head[-1])
        # Its sigmoid is 1 / C; at 0 every one of the C answers would begin with one half.
        nn.init.constant_(answer.bias, -math.log(max(1, answer.out_features - 1)))
