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
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from kovqa_core.models.beit3.config import POSITION_OFFSET, TEXT_POSITIONS, ModelConfig
from kovqa_core.models.beit3.layers import LAYER_NORM_EPS, FastLinear, MultiwayLayer, TokenStreams
from kovqa_core.models.compiled_layers import mark_varying
from kovqa_core.models.layer_norm import LayerNorm
from kovqa_core.models.xlmr_tokenizer import PAD_ID

LayerOutput = TypeVar("LayerOutput")


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
        self.compiled = False
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
                {"vision": LayerNorm(width, LAYER_NORM_EPS), "text": LayerNorm(width, LAYER_NORM_EPS)}
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

    def pad_text(
        self, tokens: Tensor, padding: Tensor | None, image_tokens: int
    ) -> tuple[Tensor, Tensor | None]:
        """Text of one of few lengths, and always with padding [B, T], on a GPU or compiled; else as it comes.

        Every length more is a graph more, or an attention plan more, to be made while the GPU waits. What is
        padded is hidden from all other tokens, so that no number changes but for rounding.

        Args:
            tokens: [B, T] ids.
            padding: [B, T], True = padding; None: no padding.
            image_tokens: P.
        """
        if not self.compiled and not tokens.is_cuda:
            return tokens, padding
        if padding is None:
            padding = torch.zeros_like(tokens, dtype=torch.bool)
        more = padded_text_length(tokens.shape[1], image_tokens) - tokens.shape[1]
        if more:
            tokens = functional.pad(tokens, (0, more), value=PAD_ID)
            padding = functional.pad(padding, (0, more), value=True)
        return tokens, padding

    def embed(
        self, image: Tensor | None, tokens: Tensor | None, padding: Tensor | None, masked: Tensor | None
    ) -> tuple[TokenStreams, Tensor | None, str]:
        """Streams, attention mask [B, 1, 1, N] (0 = visible, else -inf) and the first stream's modality."""
        streams: TokenStreams = [] if image is None else [self.embed_image(image, masked)]
        mask = None
        if tokens is not None:
            image_tokens = 0 if image is None else streams[0].shape[1]
            tokens, padding = self.pad_text(tokens, padding, image_tokens)
            streams.append(self.embed_text(tokens, padding))
            if padding is not None:
                # Image tokens are never padding. One row of keys for all heads and queries: [B, N] -> [B, 1, 1, N].
                hidden = torch.cat([padding.new_zeros(padding.shape[0], image_tokens), padding], 1)[
                    :, None, None
                ]
                mask = additive_mask(hidden, product_dtype(streams[0]))
        return streams, mask, "text" if image is None else "vision"

    def mark_varying_sizes(
        self,
        image: Tensor | None,
        text: Tensor | None,
        mask: Tensor | None,
        keep: Tensor | None,
        cached: Sequence[Tensor] = (),
    ) -> None:
        """Say which sizes of a layer's arguments change, where it is compiled: text length, and examples, of
        which a batch has fewer where rows cannot be read, and at the end of a split.

        Args:
            image: [B, P, D].
            text: [B, T, D].
            mask: [B, 1, 1 or T, N].
            keep: [2, B, 1, 1].
            cached: others whose first size is B.
        """
        if not self.compiled:
            return
        if text is not None and mask is not None:
            mark_varying(text, 1)
            mark_varying(mask, 3)
            if mask.shape[2] > 1:
                mark_varying(mask, 2)
        for tensor in (image, text, mask, *cached):
            if tensor is not None and len(tensor) > 1:
                mark_varying(tensor, 0)
        if keep is not None and keep.shape[1] > 1:
            mark_varying(keep, 1)

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
            streams = self.run(layer, streams, mask, None if keep is None else keep[i], first)
            watch(streams)
        if tokens is not None:  # without what `pad_text` added
            streams[-1] = streams[-1][:, : tokens.shape[1]]
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
        with self.layers_for(image.shape[0]):
            for i, layer in enumerate(body):
                of_layer = None if keep is None else keep[i]
                if i == 0:  # the first call is what a graph is made of
                    self.mark_varying_sizes(streams[0], streams[-1], mask, of_layer)
                streams = self.run(layer, streams, mask, of_layer, first)
            # Of the last layer another method is compiled.
            of_layer = None if keep is None else keep[-1]
            self.mark_varying_sizes(streams[0], streams[-1], mask, of_layer)
            return last.class_token(streams, mask, of_layer).squeeze(1)

    def layers_for(self, examples: int) -> AbstractContextManager[object]:
        """Inside, layers run uncompiled where each would need graphs of its own for little.

        A single example to be answered: torch compiles size 1 apart. Losses that are only ranked: without
        gradients, but with drop path.
        """
        few = self.compiled and not torch.is_grad_enabled() and (examples == 1 or self.training)
        return torch.compiler.set_stance("force_eager") if few else nullcontext()

    def run(self, function: Callable[..., LayerOutput], *arguments: object) -> LayerOutput:
        """A layer, or a method of one; with checkpointing its activations are computed again."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            # Nothing in a layer draws random numbers: no generator's state is to be kept.
            return cast(
                LayerOutput,
                checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False),
            )
        return function(*arguments)


def padded_text_length(length: int, image_tokens: int) -> int:
    """The length that text is padded to: the next that makes the sum with the image's tokens a multiple of 8.

    Of the sum, not of itself: rows of attention's mask begin at multiples of 16 bytes then, which its kernels for
    GPUs ask for. At least 8, so that the length is never the 1 that torch.compile compiles apart.
    """
    longer = max(length, 8)
    return min(longer + -(image_tokens + longer) % 8, max(length, TEXT_POSITIONS - POSITION_OFFSET))


def additive_mask(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention's scores: 0, or -inf where `hidden` (bool) is True.

    Made once for all layers: of a bool mask, attention would make this one in every layer.
    """
    return torch.zeros_like(hidden, dtype=dtype).masked_fill_(hidden, -math.inf)


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of products made of `x`: autocast's where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class Beit3VqaNet(nn.Module):
    """Encoder, pooler and classifier over the answer list."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.dimensions.embed_dim
        if config.num_classes is None:
            raise ValueError("config.num_classes must be set before a VQA network is made")
        self.encoder = MultiwayEncoder(config, final_norm=False)
        self.pooler = nn.ModuleDict(
            {"norm": LayerNorm(width, LAYER_NORM_EPS), "dense": FastLinear(width, width)}
        )
        self.head = nn.Sequential(
            FastLinear(width, 2 * width), LayerNorm(2 * width, LAYER_NORM_EPS), nn.GELU(),
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
    limits = (spaced_on_gpu if noise.is_cuda else torch.tensor)(rates, device=noise.device).view(1, -1, 1)
    keep = (noise >= limits) / (1 - limits)  # [B, layers, 2]
    return keep.permute(1, 2, 0)[..., None, None]


def spaced_on_gpu(rates: list[float], device: torch.device) -> Tensor:
    """`torch.tensor(rates)` of `drop_path_rates`, computed on a GPU: the copy of a list makes the GPU wait."""
    steps = torch.arange(len(rates), dtype=torch.float64, device=device)
    return (steps * rates[-1] / max(1, len(rates) - 1)).float()
