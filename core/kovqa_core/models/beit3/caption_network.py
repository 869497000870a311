"""BEiT-3 as a captioner: an image's keys and values once, then text tokens that look at them.

Image tokens see image tokens only; text token j sees the image and the text up to j. So the image is encoded
without any text, its keys and values serve all beams and all steps, and of the last layer it needs nothing
but them. Source: docs/sources/beit3.md, B9 and B45.

Shapes (models/family.py): B images, K beams an image, R = B · K rows, P image tokens, T text tokens, D width,
H heads, V vocabulary, S side of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from kovqa_core.models.beit3.config import POSITION_OFFSET, ModelConfig
from kovqa_core.models.beit3.layers import FastLinear, MultiwayLayer, fast_linear
from kovqa_core.models.beit3.network import (
    MultiwayEncoder,
    additive_mask,
    drop_path_factors,
    drop_path_rates,
    product_dtype,
)

ImageKvCache = list[tuple[Tensor, Tensor]]  # (keys, values) of every layer, each [B, H, P, D/H]


class CaptionNet(nn.Module):
    """Encoder and the head that predicts tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ValueError("config.vocab_size must be set before a network is made")
        self.encoder = MultiwayEncoder(config, final_norm=True)
        self.mlm_head = FastLinear(config.dimensions.embed_dim, config.vocab_size)
        self.drop_path = drop_path_rates(config.drop_path, config.dimensions.num_layers)
        for parameter in self.unused_parameters():
            parameter.requires_grad_(False)

    def unused_parameters(self) -> list[nn.Parameter]:
        """Weights that no token depends on: the mask token, and the image branch after the last keys."""
        last = self.layers[-1].vision
        assert self.encoder.norm is not None
        unused: tuple[nn.Module, ...] = (
            last.inner_norm_attn, last.out, last.norm_ffn, last.fc1, last.inner_norm_ffn, last.fc2,
            self.encoder.norm["vision"],
        )  # fmt: skip
        return [self.encoder.mask_token_embed, *(p for module in unused for p in module.parameters())]

    @property
    def layers(self) -> list[MultiwayLayer]:
        """The encoder's layers."""
        return cast("list[MultiwayLayer]", list(self.encoder.layers))

    def encode_image(self, image: Tensor, keep: Tensor | None = None) -> ImageKvCache:
        """Keys and values of an image in every layer.

        Args:
            image: [B, 3, S, S], normalised.
            keep: [layers, 2, B, 1, 1] drop path factors, or None.
        """
        x = self.encoder.embed_image(image)
        *body, last = self.layers
        cache: ImageKvCache = []
        with self.encoder.layers_for(image.shape[0]):
            for i, layer in enumerate(body):
                of_layer = None if keep is None else keep[i]
                self.encoder.mark_varying_sizes(x, None, None, of_layer)
                x, keys, values = self.encoder.run(layer.image_tokens, x, of_layer)
                cache.append((keys, values))
        # Of the last layer only keys and values, rows D … 3 D of the joined weight: nothing reads its output.
        width, branch = x.shape[-1], last.vision
        keys_values = fast_linear(branch.norm_attn(x), branch.qkv.weight[width:], branch.qkv.bias[width:])
        return [*cache, cast("tuple[Tensor, Tensor]", last.split_heads(keys_values, 2))]

    def search_cache(self, image: Tensor) -> ImageKvCache:
        """`encode_image`, laid out as `next_token_logits` reads it: every token would bring it into that form anew."""
        # A product over all images and heads needs them side by side: keys [B, H, D/H, P], values [B, H, P, D/H].
        return [(keys.mT.contiguous().mT, values.contiguous()) for keys, values in self.encode_image(image)]

    def hidden_states(
        self, image: Tensor, tokens: Tensor, padding: Tensor | None, noise: Tensor | None = None
    ) -> Tensor:
        """Every text token's state after the final norm, [B, T, D].

        Args:
            image: [B, 3, S, S], normalised.
            tokens: [B, T] ids.
            padding: [B, T], True = padding, or None.
            noise: [B, layers, 2] uniform draws in 0…1 that decide drop path; None: keep all.
        """
        keep = None if noise is None or not any(self.drop_path) else drop_path_factors(noise, self.drop_path)
        length = tokens.shape[1]
        # The same factors for image and text: a layer drops both streams together, as in `MultiwayLayer`.
        cache = self.encode_image(image, keep)
        image_tokens = cache[0][0].shape[2]
        tokens, padding = self.encoder.pad_text(tokens, padding, image_tokens)
        x = self.encoder.embed_text(tokens, padding)
        mask = caption_mask(image_tokens, tokens, padding, product_dtype(x))
        with self.encoder.layers_for(image.shape[0]):
            for i, layer in enumerate(self.layers):
                of_layer = None if keep is None else keep[i]
                # In every layer: the last has a graph of its own, for keys and values that lie otherwise.
                self.encoder.mark_varying_sizes(None, x, mask, of_layer, cache[i])
                x = self.encoder.run(layer.text_tokens, x, *cache[i], mask, of_layer)
        assert self.encoder.norm is not None
        return self.encoder.norm["text"](x[:, :length])

    def next_token_logits(
        self, last_ids: Tensor, mask_id: int, image_cache: ImageKvCache, text_cache: TextKvCache
    ) -> Tensor:
        """Logits of the token after the last one, [R, V]; the last token joins `text_cache`.

        Two tokens go through the network: the last one, whose keys and values are kept, and the mask
        token in the place of the one to be predicted.

        Args:
            last_ids: [R], the last token of every row.
            mask_id: id of `<mask>`.
            image_cache: what `search_cache` or `encode_image` gave; the rows of one image follow each other.
            text_cache: the tokens before.
        """
        tokens = torch.stack([last_ids, torch.full_like(last_ids, mask_id)], 1)  # [R, 2]
        # Places of the last token, and of the one that follows it.
        position = POSITION_OFFSET + text_cache.length
        x = self.encoder.text_embed(tokens) + self.encoder.text_position_embed[position : position + 2]
        for i, layer in enumerate(self.layers):
            x = _next_token_layer_forward(layer, x, image_cache[i], text_cache, i)
        text_cache.length += 1
        assert self.encoder.norm is not None
        return self.mlm_head(self.encoder.norm["text"](x[:, -1]))

    def empty_kv_cache(self, rows: int, max_length: int, like: Tensor) -> TextKvCache:
        """Room for keys and values of `rows` texts of up to `max_length` tokens; dtype and device of `like`."""
        heads = self.layers[0].heads
        shape = (len(self.layers), 2, rows, heads, max_length, self.mlm_head.in_features // heads)
        return TextKvCache(like.new_empty(shape), like.new_empty(0), 0)


@dataclass
class TextKvCache:
    """Keys and values of the tokens so far.

    Attributes:
        keys_values: [layers, 2, R, H, max_length, D/H], of which `length` tokens are filled.
        other: memory of the same shape or larger, to which other rows are copied.
        length: tokens so far.
    """

    keys_values: Tensor
    other: Tensor
    length: int

    def select_rows(self, rows: Tensor) -> TextKvCache:
        """The cache of other rows, [R'], some perhaps twice: what beams go on from. Copies what is filled.

        Two blocks of memory take turns: this cache is written over by the next call but one.
        """
        if not self.other.numel() or self.other.shape[2] < len(rows):
            self.other = self.keys_values.new_empty(
                *self.keys_values.shape[:2], len(rows), *self.keys_values.shape[3:]
            )
        chosen = self.other[:, :, : len(rows)]
        # Beyond `length` lies uninitialised memory, which nothing reads: [layers, 2, R, H, filled, D/H].
        filled = slice(0, self.length)
        torch.index_select(self.keys_values[..., filled, :], 2, rows, out=chosen[..., filled, :])
        return TextKvCache(chosen, self.keys_values, self.length)


def caption_mask(image_tokens: int, tokens: Tensor, padding: Tensor | None, dtype: torch.dtype) -> Tensor:
    """[B or 1, 1, T, P + T], added to scores: 0 where a text token may look: the image, itself and the text before.

    Args:
        image_tokens: P.
        tokens: [B, T] ids.
        padding: [B, T], True = padding, or None.
        dtype: of attention.
    """
    length = tokens.shape[1]
    hidden = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)[None, None]
    if padding is not None:
        hidden = hidden | padding[:, None, None]
    hidden = torch.cat([hidden.new_zeros(*hidden.shape[:-1], image_tokens), hidden], -1)
    return additive_mask(hidden, dtype)


def _next_token_layer_forward(
    layer: MultiwayLayer, x: Tensor, image_kv: tuple[Tensor, Tensor], text_cache: TextKvCache, i: int
) -> Tensor:
    """[R, 2, D] -> [R, 2, D]; of the last layer only the mask token's [R, 1, D] is needed."""
    branch, start, end = layer.text, text_cache.length, text_cache.length + 2
    joined = branch.qkv(branch.norm_attn(x)).view(*x.shape[:2], 3, layer.heads, -1)
    qkv = joined.permute(2, 0, 3, 1, 4)  # [3, R, H, 2, D/H]
    keys_values = text_cache.keys_values[i, ..., :end, :]
    # The last token's stay; those of the mask token are for this step alone: the next token's take their place.
    keys_values[..., start:, :] = qkv[1:]
    q, (keys, values) = qkv[0], keys_values.unbind()
    # Nothing reads the last token any more: no layer comes after whose keys it would make.
    if i == len(text_cache.keys_values) - 1:
        q, x = q[:, :, 1:], x[:, 1:]
    return branch.after_attention(x, _attend_image_and_text(q, *image_kv, keys, values), None)


def _attend_image_and_text(
    q: Tensor, image_keys: Tensor, image_values: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Attention of each row to its image, which its beams share, and to its own text, [R, T, D].

    The softmax over both sets of keys is made of one over each, a_i and a_t:

        softmax([s_i, s_t]) · [v_i; v_t] = w a_i + (1 - w) a_t,   w = Σ exp s_i / (Σ exp s_i + Σ exp s_t)

    so the image's keys and values are never copied for its beams. w is the sigmoid of the difference of
    both logsumexp, which does not overflow.

    Args:
        q: [R, H, T, D/H]; of T = 2 the first does not see the last key, the mask token's.
        image_keys, image_values: [B, H, P, D/H].
        keys, values: [R, H, text so far, D/H].
    """
    rows, heads, length, width = q.shape
    images = len(image_keys)
    q = (q * width**-0.5).transpose(1, 2)  # [R, T, H, D/H]
    # The beams of an image follow each other: [R, T] = [B, K · T], one matrix product an image and head.
    image_scores = q.reshape(images, -1, heads, width).transpose(1, 2) @ image_keys.mT  # [B, H, K · T, P]
    text_scores = q.transpose(1, 2) @ keys.mT  # [R, H, T, text so far]
    if length == 2:
        text_scores[:, :, 0, -1] = -math.inf
    from_image = (image_scores.softmax(-1) @ image_values).transpose(1, 2).reshape(rows, length, heads, width)
    from_text = (text_scores.softmax(-1) @ values).transpose(1, 2)  # [R, T, H, D/H], as from_image
    image_sums = image_scores.logsumexp(-1).transpose(1, 2).reshape(rows, length, heads)
    weight = torch.sigmoid(image_sums - text_scores.logsumexp(-1).transpose(1, 2)).unsqueeze(-1)
    # CUDA's autocast computes logsumexp in fp32, and lerp takes operands of one dtype only.
    return torch.lerp(from_text, from_image, weight.to(from_text.dtype)).flatten(2)
