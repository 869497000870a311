"""Captioning: masked tokens are predicted from the image and the tokens before them.

Source: docs/sources/beit3.md, B42 and B43.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kovqa_core.data.example import Answer, Example
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.messages import message
from kovqa_core.models import image_transforms
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.beit3.beam_search import BeamSearchSettings, begin_beam_search
from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.beit3.config import CaptionSettings, ModelConfig
from kovqa_core.models.family import ReadAnswers
from kovqa_core.models.image_pipeline import ImagePipeline
from kovqa_core.models.xlmr_tokenizer import UNK_ID, XlmrTokenizer, pad_token_ids
from kovqa_core.settings.recipe import DataSettings

# What becomes of a token that is to be predicted: `<mask>`, itself, or (the rest) a random one.
_MASK_FRACTION, _KEEP_FRACTION = 0.8, 0.1


@dataclass(frozen=True)
class CaptionItem:
    """One encoded example.

    Attributes:
        id: the example's.
        image: uint8 [3, S, S].
        tokens: the caption's ids, some of them masked; empty when not training.
        masked_positions: (position, id) of the tokens to be predicted.
        noise: float32 [layers, 2], uniform in 0…1, decides drop path.
    """

    id: str
    image: np.ndarray
    tokens: list[int]
    masked_positions: list[tuple[int, int]]
    noise: np.ndarray


class Beit3CaptionProcessor:
    """Images and captions -> batches."""

    def __init__(self, config: ModelConfig, tokenizer: XlmrTokenizer, data: DataSettings) -> None:
        self.config, self.tokenizer, self.data = config, tokenizer, data
        self._images = ImagePipeline(config.image_size, data, as_stored=config.load_as_stored)

    def encode(self, example: Example, images: Path, *, train: bool, rng: np.random.Generator) -> CaptionItem:
        """One example; of several captions one is drawn. Errors name its id."""
        image = self._images.load_image(example, images, train=train, rng=rng)
        if not train:
            return CaptionItem(example.id, image, [], [], np.zeros((0, 2), np.float32))
        if not any(caption.strip() for caption in example.captions):
            raise DataError(
                message("beit3.no-caption", "id {id}: no caption to learn from", id=example.id),
                message("beit3.no-caption.hint", "write the index again: kovqa index"),
            )
        # The order of draws is part of what a seed means: noise, caption, positions, replacements.
        noise = rng.random((self.config.dimensions.num_layers, 2), np.float32)
        caption = example.captions[int(rng.integers(len(example.captions)))]
        tokens = self.tokenizer.encode_with_specials(to_nfc(caption), self.config.max_text)
        number = count_masked_tokens(len(tokens), self.config.caption.mask)
        drawn = sorted(rng.choice(len(tokens) - 1, number, False) + 1)  # never `<s>`
        positions = [(int(position), tokens[position]) for position in drawn]
        return CaptionItem(example.id, image, self._mask_tokens(tokens, positions, rng), positions, noise)

    def _mask_tokens(
        self, tokens: list[int], positions: list[tuple[int, int]], rng: np.random.Generator
    ) -> list[int]:
        masked = list(tokens)
        for (position, _), draw in zip(positions, rng.random(len(positions)), strict=True):
            if draw < _MASK_FRACTION:
                masked[position] = self.tokenizer.mask_id
            elif draw >= _MASK_FRACTION + _KEEP_FRACTION:
                masked[position] = int(rng.integers(UNK_ID, self.tokenizer.mask_id))
        return masked

    def collate(self, items: Sequence[CaptionItem]) -> ModelBatch:
        """Captions are padded to the longest of the batch."""
        tensors: dict[str, Tensor | None] = {
            "image": torch.from_numpy(np.stack([item.image for item in items])),
            "noise": torch.from_numpy(np.stack([item.noise for item in items])),
        }
        if items[0].tokens:
            tensors["tokens"], tensors["padding"] = pad_token_ids([item.tokens for item in items])
            positions = [(row, at) for row, item in enumerate(items) for at, _ in item.masked_positions]
            tensors["positions"] = torch.tensor(positions)  # [N, 2]: row, position
            tensors["targets"] = torch.tensor([id for item in items for _, id in item.masked_positions])
        return ModelBatch(tensors, [item.id for item in items])


def count_masked_tokens(length: int, probability: float) -> int:
    """How many of a caption's tokens are to be predicted; `length` counts `<s>`, which never is."""
    return max(1, min(math.floor(length * probability + 0.5), length - 1))


class CaptionTask:
    """The task: a sentence for every image.

    Args:
        settings: how it is learned and searched for.
        max_length: tokens of a caption, `<s>` and `</s>` included.
        tokenizer: ids <-> texts.
    """

    def __init__(self, settings: CaptionSettings, max_length: int, tokenizer: XlmrTokenizer) -> None:
        self.settings, self.tokenizer = settings, tokenizer
        self.search = BeamSearchSettings(settings.num_beams, max_length, settings.length_penalty)

    def set_num_beams(self, num_beams: int) -> None:
        """Follow so many captions at once from now on."""
        self.search = replace(self.search, num_beams=num_beams)

    def loss(self, net: CaptionNet, batch: ModelBatch, step: int) -> Tensor:
        """The mean loss of the masked tokens that count; a scalar."""
        return self.mean_loss(self.losses(net, batch), batch, step)

    def losses(self, net: CaptionNet, batch: ModelBatch) -> Tensor:
        """Smoothed cross-entropy of every masked token, less the targets' own entropy: [N]."""
        logits = masked_token_logits(net, batch)
        return masked_token_losses(logits, batch.tensors["targets"], self.settings.smoothing)

    def mean_loss(self, losses: Tensor, batch: ModelBatch, step: int) -> Tensor:
        """The mean of the losses [N] that count.

        After `drop_worst_after` steps the largest do not: captions that people wrote have words that no
        model could foresee.
        """
        if not self.drops_losses(step):
            return losses.mean()
        counted = batch.tensors.get("counted")
        if counted is None:  # the batch is the whole of what is ranked
            counted = self.counted_losses(losses.detach())
        # A micro-batch of which nothing counts has loss 0, not 0 / 0.
        return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp(min=1)

    def drops_losses(self, step: int) -> bool:
        """Is a part of the losses of this step left out?"""
        return self.settings.drop_worst > 0 and step > self.settings.drop_worst_after

    def counted_losses(self, losses: Tensor) -> Tensor:
        """Which losses [N] count, bool [N]: floor(N (1 - drop_worst)), the smallest, and at least one.

        Of equal ones the first, so that the choice does not depend on how they were collected.
        """
        counted = torch.zeros_like(losses, dtype=torch.bool)
        counted[losses.argsort(stable=True)[: self._count_kept(len(losses))]] = True
        return counted

    def count_losses(self, batch: ModelBatch, step: int) -> Tensor | float:
        """How many losses of a batch count."""
        counted, number = batch.tensors.get("counted"), len(batch.tensors["targets"])
        if counted is not None:
            return counted.sum()
        return float(self._count_kept(number) if self.drops_losses(step) else number)

    def _count_kept(self, number: int) -> int:
        return max(1, math.floor(number * (1 - self.settings.drop_worst)))

    def begin_answers(self, net: CaptionNet, batch: ModelBatch) -> ReadAnswers:
        """The best caption found for each image, with the geometric mean of its tokens' probabilities."""
        image = image_transforms.normalise_pixels(batch.tensors["image"])
        read = begin_beam_search(net, image, self.search, self.tokenizer.mask_id)
        return lambda: [
            Answer(
                self.tokenizer.decode(best.token_ids),
                math.exp(best.log_probability / (len(best.token_ids) + 1)),  # `</s>` counts
            )
            for best in read()
        ]


def masked_token_logits(net: CaptionNet, batch: ModelBatch) -> Tensor:
    """Logits of the N tokens to be predicted, [N, V], in fp32: no other token's are computed."""
    tensors = batch.tensors
    noise = tensors["noise"] if net.training else None
    image = image_transforms.normalise_pixels(tensors["image"])
    hidden = net.hidden_states(image, tensors["tokens"], tensors["padding"], noise)  # [B, T, D]
    rows, positions = tensors["positions"].unbind(1)
    return net.mlm_head(hidden[rows, positions]).float()


def masked_token_losses(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """KL divergence of the prediction from the smoothed target, per token: [N].

    The target has 1 - e on the right id and e / (V - 1) on every other.

    Args:
        logits: [N, V].
        targets: [N], the right ids.
        smoothing: e.
    """
    # Without making the target [N, V]: Σ q log p = (1 - e) log p_right + e / (V - 1) · Σ over the others.
    others = logits.shape[1] - 1
    log_probabilities = logits.log_softmax(-1)
    right = log_probabilities.gather(1, targets[:, None]).squeeze(1)
    rest = log_probabilities.sum(-1) - right
    losses = -(1 - smoothing) * right - smoothing / others * rest
    if smoothing:  # the target's entropy, so that a perfect prediction has loss 0
        losses = losses + (1 - smoothing) * math.log(1 - smoothing) + smoothing * math.log(smoothing / others)
    return losses
