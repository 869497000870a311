"""BEiT-3 as a captioner: a picture's keys and values once, then words that look at them.

Picture tokens see picture tokens only; word j sees the picture and words up to j. So the picture
is encoded without any word, its keys and values serve all beams and all steps, and of the last
layer it needs nothing but them. Source: docs/sources/beit3.md, B9 and B45.

Shapes: B pictures, R = B·K rows (K beams a picture), T words, V picture tokens, H heads, D width,
W words of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kovqa_core.models.beit3.config import POSITION_OFFSET, ModelConfig
from kovqa_core.models.beit3.network import (
    FastLinear,
    MultiwayEncoder,
    MultiwayLayer,
    drop_path_factors,
    drop_path_rates,
    fast_linear,
)

LayerOutput = TypeVar("LayerOutput")
ImageKvCache = list[tuple[Tensor, Tensor]]  # (keys, values) of every layer, each [B, H, V, D/H]


class CaptionNet(nn.Module):
    """Encoder and the head that names words."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ValueError("config.vocab_size must be set before a network is made")
        self.encoder = MultiwayEncoder(config, final_norm=True)
        self.mlm_head = FastLinear(config.sizes.embed_dim, config.vocab_size)
        self.drop_path = drop_path_rates(config.drop_path, config.sizes.num_layers)
        for parameter in self.unread():
            parameter.requires_grad_(False)

    def unread(self) -> list[nn.Parameter]:
        """Weights no word depends on: the mask token, and the picture's side after the last keys."""
        last = self.layers[-1].vision
        assert self.encoder.norm is not None
        dead: tuple[nn.Module, ...] = (
            last.inner_norm_attn, last.out, last.norm_ffn, last.fc1, last.inner_norm_ffn, last.fc2,
            self.encoder.norm["vision"],
        )  # fmt: skip
        return [self.encoder.mask_token_embed, *(p for module in dead for p in module.parameters())]

    @property
    def layers(self) -> list[MultiwayLayer]:
        """The encoder's layers."""
        return cast("list[MultiwayLayer]", list(self.encoder.layers))

    def picture(self, image: Tensor, keep: Tensor | None = None) -> ImageKvCache:
        """Keys and values of a picture in every layer.

        Args:
            image: [B, 3, S, S], normalised.
            keep: [L, 2, B, 1, 1] stochastic depth factors, or None.
        """
        x = self.encoder.embed_image(image)
        *body, last = self.layers
        seen: ImageKvCache = []
        for i, layer in enumerate(body):
            x, keys, values = self._run(_image_layer_forward, layer, x, None if keep is None else keep[i])
            seen.append((keys, values))
        width, branch = x.shape[-1], last.vision
        pair = fast_linear(branch.norm_attn(x), branch.qkv.weight[width:], branch.qkv.bias[width:])
        return [*seen, cast("tuple[Tensor, Tensor]", last.split_heads(pair, 2))]

    def hidden(
        self, image: Tensor, tokens: Tensor, padding: Tensor | None, noise: Tensor | None = None
    ) -> Tensor:
        """Every word's state after the final norm, [B, T, D].

        Args:
            image: [B, 3, S, S], normalised.
            tokens: [B, T] ids.
            padding: [B, T], True = padding, or None.
            noise: [B, L, 2] uniform draws in 0…1 that decide stochastic depth; None: keep all.
        """
        keep = None if noise is None or not any(self.drop_path) else drop_path_factors(noise, self.drop_path)
        picture = self.picture(image, keep)
        x = self.encoder.embed_text(tokens, padding)
        mask = caption_mask(picture[0][0].shape[2], tokens, padding)
        for i, layer in enumerate(self.layers):
            x = self._run(_text_layer_forward, layer, x, *picture[i], mask, None if keep is None else keep[i])
        assert self.encoder.norm is not None
        return self.encoder.norm["text"](x)

    def next_words(self, words: Tensor, mask_id: int, picture: ImageKvCache, past: TextKvCache) -> Tensor:
        """Logits of the word after the last one, [R, W]; the last word joins `past`.

        Two tokens go through the network: the last word, whose keys and values are kept, and the
        mask token in the place of the word to be named.

        Args:
            words: [R], the last word of every row.
            mask_id: id of `<mask>`.
            picture: what `picture` gave; the rows of one picture follow each other.
            past: the words before.
        """
        tokens = torch.stack([words, torch.full_like(words, mask_id)], 1)
        place = POSITION_OFFSET + past.length
        x = self.encoder.text_embed(tokens) + self.encoder.text_position_embed[place : place + 2]
        for i, layer in enumerate(self.layers):
            x = _next_token_layer_forward(layer, x, picture[i], past, i)
        past.length += 1
        assert self.encoder.norm is not None
        return self.mlm_head(self.encoder.norm["text"](x[:, -1]))

    def past(self, rows: int, longest: int, like: Tensor) -> TextKvCache:
        """Room for the keys and values of so many rows of words."""
        heads = self.layers[0].heads
        shape = (len(self.layers), rows, heads, longest, self.mlm_head.in_features // heads)
        return TextKvCache(like.new_empty(shape), like.new_empty(shape), 0)

    def _run(self, part: Callable[..., LayerOutput], *given: object) -> LayerOutput:
        if self.encoder.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(part, *given, use_reentrant=False)
        return part(*given)


@dataclass
class TextKvCache:
    """Keys and values of the words so far, [L, R, H, longest, D/H] of which `length` are filled."""

    keys: Tensor
    values: Tensor
    length: int

    def of(self, rows: Tensor) -> TextKvCache:
        """The past of other rows, [R']."""
        shape = (self.keys.shape[0], len(rows), *self.keys.shape[2:])
        keys, values = self.keys.new_empty(shape), self.values.new_empty(shape)
        filled = slice(0, self.length)
        keys[..., filled, :] = self.keys[..., filled, :][:, rows]
        values[..., filled, :] = self.values[..., filled, :][:, rows]
        return TextKvCache(keys, values, self.length)


def caption_mask(picture: int, tokens: Tensor, padding: Tensor | None) -> Tensor:
    """[B or 1, 1, T, V + T], True where a word may look: the picture, itself and the words before."""
    length = tokens.shape[1]
    words = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()[None, None]
    if padding is not None:
        words = words & ~padding[:, None, None]
    return torch.cat([words.new_ones(*words.shape[:-1], picture), words], -1)


def _image_layer_forward(
    layer: MultiwayLayer, x: Tensor, keep: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    branch = layer.vision
    q, k, v = layer.split_heads(branch.qkv(branch.norm_attn(x)), 3)
    return branch.after_attention(x, layer.attend(q, k, v, None), keep), k, v


def _text_layer_forward(
    layer: MultiwayLayer, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, keep: Tensor | None
) -> Tensor:
    branch = layer.text
    q, k, v = layer.split_heads(branch.qkv(branch.norm_attn(x)), 3)
    attended = layer.attend(q, torch.cat([keys, k], 2), torch.cat([values, v], 2), mask)
    return branch.after_attention(x, attended, keep)


def _next_token_layer_forward(
    layer: MultiwayLayer, x: Tensor, picture: tuple[Tensor, Tensor], past: TextKvCache, i: int
) -> Tensor:
    """[R, 2, D] -> [R, 2, D]; of the last layer nothing but the mask token's [R, 1, D] is needed."""
    branch, end = layer.text, past.length + 1
    q, k, v = layer.split_heads(branch.qkv(branch.norm_attn(x)), 3)
    past.keys[i, :, :, past.length] = k[:, :, 0]
    past.values[i, :, :, past.length] = v[:, :, 0]
    keys = torch.cat([past.keys[i, :, :, :end], k[:, :, 1:]], 2)
    values = torch.cat([past.values[i, :, :, :end], v[:, :, 1:]], 2)
    if i == len(past.keys) - 1:
        q, x = q[:, :, 1:], x[:, 1:]
    return branch.after_attention(x, _attend_image_and_text(q, *picture, keys, values), None)


def _attend_image_and_text(q: Tensor, seen_k: Tensor, seen_v: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of each row to its picture, which its beams share, and to its own words, [R, T, D].

    One softmax over both is two, weighted by the sums of their exponentials: so no key is copied.

    Args:
        q: [R, H, T, D/H]; of T = 2 the first does not see the last word.
        seen_k, seen_v: [B, H, V, D/H].
        keys, values: [R, H, words, D/H].
    """
    rows, heads, length, width = q.shape
    pictures = len(seen_k)
    q = (q * width**-0.5).transpose(1, 2)  # [R, T, H, D/H]: the beams of a picture follow each other
    to_picture = q.reshape(pictures, -1, heads, width).transpose(1, 2) @ seen_k.mT
    to_words = q.transpose(1, 2) @ keys.mT
    if length == 2:
        to_words[:, :, 0, -1] = -math.inf
    seen = (to_picture.softmax(-1) @ seen_v).transpose(1, 2).reshape(rows, length, heads, width)
    said = (to_words.softmax(-1) @ values).transpose(1, 2)
    sums = to_picture.logsumexp(-1).transpose(1, 2).reshape(rows, length, heads)
    share = torch.sigmoid(sums - to_words.logsumexp(-1).transpose(1, 2)).unsqueeze(-1)
    # CUDA's autocast computes logsumexp in fp32, and lerp takes operands of one dtype only.
    return torch.lerp(said, seen, share.to(said.dtype)).flatten(2)
