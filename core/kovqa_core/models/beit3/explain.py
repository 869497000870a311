"""How sure BEiT-3 is of a given answer or caption, and where its tokens attend.

Attention rollout: docs/sources/explain.md, X3 and X4. Shapes (models/family.py): B, P image tokens (class token first),
T text tokens, N = P + T, S side of the image.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import numpy as np
import torch
from torch import Tensor

from kovqa_core.models import image_transforms
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.beit3.caption import Beit3CaptionProcessor
from kovqa_core.models.beit3.caption_network import CaptionNet, caption_mask
from kovqa_core.models.beit3.layers import MultiwayLayer, TokenStreams
from kovqa_core.models.beit3.network import Beit3VqaNet, MultiwayEncoder, product_dtype
from kovqa_core.models.beit3.vqa import Beit3VqaProcessor, beit3_vqa_logits
from kovqa_core.models.explain_functions import sequence_log_odds, token_log_odds


def score_answer(
    net: Beit3VqaNet | CaptionNet,
    processor: Beit3VqaProcessor | Beit3CaptionProcessor,
    batch: ModelBatch,
    answer: str,
) -> Tensor:
    """Log-odds of an answer, [B]: its class's logit; of a caption those of its tokens together.

    Raises:
        ValueError: the answer is not a class.
    """
    if isinstance(processor, Beit3VqaProcessor):
        # A class is a sigmoid of its own: its logit is its log-odds.
        return beit3_vqa_logits(cast(Beit3VqaNet, net), batch)[:, processor.answers.index(answer)]
    return _caption_log_odds(cast(CaptionNet, net), processor, batch, answer)


def _caption_log_odds(
    net: CaptionNet, processor: Beit3CaptionProcessor, batch: ModelBatch, caption: str
) -> Tensor:
    """As the caption is searched for, but with its own tokens: the image is encoded once for all of them."""
    mask_id = processor.tokenizer.mask_id
    token_ids = processor.tokenizer.encode_with_specials(caption, processor.config.max_text)
    image_cache = net.search_cache(image_transforms.normalise_pixels(batch.tensors["image"]))
    rows, like = len(batch.ids), image_cache[0][0]
    text_cache = net.empty_kv_cache(rows, len(token_ids) + 1, like)
    of_tokens = []
    for last, target in pairwise(token_ids):
        last_ids, targets = (torch.full((rows,), id, device=like.device) for id in (last, target))
        logits = net.next_token_logits(last_ids, mask_id, image_cache, text_cache).float()
        of_tokens.append(token_log_odds(logits[:, : mask_id + 1], targets))
    return sequence_log_odds(torch.stack(of_tokens, 1))


# ------------------------------------------------------------------------------ attention rollout


def roll_out_attention(
    net: Beit3VqaNet | CaptionNet,
    processor: Beit3VqaProcessor | Beit3CaptionProcessor,
    batch: ModelBatch,
    answer: str,
) -> np.ndarray:
    """How much of each patch reaches the token that an answer is read from, [rows, columns].

    That is the class token; of a caption the mean over the mask tokens that its tokens are predicted from.

    Args:
        net: the network.
        processor: of the batch.
        batch: of one row.
        answer: the caption; an answer's class is not looked at.
    """
    image = image_transforms.normalise_pixels(batch.tensors["image"])
    side = processor.config.image_size // processor.config.patch_size
    patches = slice(1, 1 + side * side)  # behind the class token
    if isinstance(processor, Beit3VqaProcessor):
        streams, mask, _ = net.encoder.embed(image, batch.tensors["tokens"], batch.tensors["padding"], None)
        from_patches = _rolled_out_rows(net.encoder, streams, mask)[0, 0, patches]
    else:
        from_patches = torch.stack(
            [
                _rolled_out_rows(net.encoder, streams, mask)[0, -1, patches]
                for streams, mask in _caption_prefixes(net.encoder, processor, image, answer)
            ]
        ).mean(0)
    return from_patches.view(side, side).cpu().numpy()


def _caption_prefixes(
    encoder: MultiwayEncoder, processor: Beit3CaptionProcessor, image: Tensor, caption: str
) -> list[tuple[TokenStreams, Tensor]]:
    """Image and text, and who sees whom, for every token of a caption: those before it, and the mask in its place."""
    token_ids = processor.tokenizer.encode_with_specials(caption, processor.config.max_text)
    image_tokens = encoder.embed_image(image)  # [1, P, D]
    count = image_tokens.shape[1]
    prefixes = []
    for length in range(1, len(token_ids)):
        tokens = torch.tensor([[*token_ids[:length], processor.tokenizer.mask_id]], device=image.device)
        of_text = caption_mask(count, tokens, None, product_dtype(image_tokens))  # [1, 1, T, N]
        of_image = of_text.new_zeros(1, 1, count, of_text.shape[-1])
        of_image[..., count:] = -torch.inf  # image tokens see image tokens only
        mask = torch.cat([of_image, of_text], 2)
        prefixes.append(([image_tokens, encoder.embed_text(tokens, None)], mask))
    return prefixes


def _rolled_out_rows(encoder: MultiwayEncoder, streams: TokenStreams, mask: Tensor | None) -> Tensor:
    """How much of each token's input reaches each token's output, [B, N, N]: rows add up to 1.

    Each layer mixes tokens by the mean of its heads' attention, and half of a token stays what it was: the residual.
    """
    reached: Tensor | None = None
    for layer in cast("list[MultiwayLayer]", list(encoder.layers)):
        streams, attention = _layer_with_attention(layer, streams, mask)
        identity = torch.eye(attention.shape[-1], device=attention.device)
        mixed = (attention + identity) / 2
        reached = mixed if reached is None else mixed @ reached
    assert reached is not None
    return reached


def _layer_with_attention(
    layer: MultiwayLayer, streams: TokenStreams, mask: Tensor | None
) -> tuple[TokenStreams, Tensor]:
    """What `MultiwayLayer.forward` gives, and the mean of its heads' attention [B, N, N], which it never has."""
    branches = layer.branches(streams, "vision")
    qkv = [branch.qkv(branch.norm_attn(x)) for branch, x in zip(branches, streams, strict=True)]
    q, k, v = layer.split_heads(torch.cat(qkv, 1), 3)
    scores = q * q.shape[-1] ** -0.5 @ k.mT  # [B, H, N, N]
    attention = (scores if mask is None else scores + mask).float().softmax(-1)
    attended = (attention.to(v.dtype) @ v).transpose(1, 2).flatten(2)
    parts = attended.split([x.shape[1] for x in streams], 1)
    after = [b.after_attention(x, a, None) for b, x, a in zip(branches, streams, parts, strict=True)]
    return after, attention.mean(1)
