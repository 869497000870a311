"""Captioning: masked words are named from the picture and the words before them.

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
from kovqa_core.models import image_transforms
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.beit3.beam_search import BeamSearchSettings, run_beam_search
from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.beit3.config import CaptionSettings, ModelConfig
from kovqa_core.models.image_pipeline import ImagePipeline
from kovqa_core.models.xlmr_tokenizer import UNK_ID, XlmrTokenizer, pad_token_ids
from kovqa_core.settings.recipe import DataSettings

_MASK_FRACTION, _KEEP_FRACTION = (
    0.8,
    0.1,
)  # of the words to be named: behind the mask, as they are; the rest at random


@dataclass(frozen=True)
class CaptionItem:
    """One encoded example.

    Attributes:
        id: the example's.
        image: uint8 [3, S, S].
        tokens: the caption's ids, some of them hidden.
        wanted: (place, id) of the words to be named.
        noise: float32 [L, 2], decides stochastic depth.
    """

    id: str
    image: np.ndarray
    tokens: list[int]
    wanted: list[tuple[int, int]]
    noise: np.ndarray


class Beit3CaptionProcessor:
    """Pictures and captions -> batches."""

    def __init__(self, config: ModelConfig, tokenizer: XlmrTokenizer, data: DataSettings) -> None:
        self.config, self.tokenizer, self.data = config, tokenizer, data
        self._pictures = ImagePipeline(config.image_size, data)

    def encode(self, example: Example, images: Path, *, train: bool, rng: np.random.Generator) -> CaptionItem:
        """One example; of several captions one is drawn. Errors name its id."""
        image = self._pictures.of(example, images, train=train, rng=rng)
        if not train:
            return CaptionItem(example.id, image, [], [], np.zeros((0, 2), np.float32))
        if not any(caption.strip() for caption in example.captions):
            raise DataError(
                f"id {example.id}: no caption to learn from", "write the index again: kovqa index"
            )
        noise = rng.random((self.config.sizes.num_layers, 2), np.float32)
        caption = example.captions[int(rng.integers(len(example.captions)))]
        tokens = self.tokenizer.frame(to_nfc(caption), self.config.max_text)
        places = sorted(
            rng.choice(len(tokens) - 1, count_masked_tokens(len(tokens), self.config.caption.mask), False) + 1
        )
        wanted = [(int(place), tokens[place]) for place in places]
        return CaptionItem(example.id, image, self._hidden(tokens, wanted, rng), wanted, noise)

    def _hidden(
        self, tokens: list[int], wanted: list[tuple[int, int]], rng: np.random.Generator
    ) -> list[int]:
        shown = list(tokens)
        for (place, _), draw in zip(wanted, rng.random(len(wanted)), strict=True):
            if draw < _MASK_FRACTION:
                shown[place] = self.tokenizer.mask
            elif draw >= _MASK_FRACTION + _KEEP_FRACTION:
                shown[place] = int(rng.integers(UNK_ID, self.tokenizer.mask))
        return shown

    def collate(self, items: Sequence[CaptionItem]) -> ModelBatch:
        """Captions are padded to the longest here."""
        tensors: dict[str, Tensor | None] = {
            "image": torch.from_numpy(np.stack([item.image for item in items])),
            "noise": torch.from_numpy(np.stack([item.noise for item in items])),
        }
        if items[0].tokens:
            tensors["tokens"], tensors["padding"] = pad_token_ids([item.tokens for item in items])
            rows = [(row, place) for row, item in enumerate(items) for place, _ in item.wanted]
            tensors["places"] = torch.tensor(rows)
            tensors["words"] = torch.tensor([word for item in items for _, word in item.wanted])
        return ModelBatch(tensors, [item.id for item in items])


def count_masked_tokens(length: int, probability: float) -> int:
    """How many of a caption's words are to be named; `length` counts `<s>`, which never is."""
    return max(1, min(math.floor(length * probability + 0.5), length - 1))


class CaptionTask:
    """The task: a sentence for every picture.

    Args:
        settings: how it is learned and sought.
        longest: tokens of a caption.
        tokenizer: ids and their texts.
    """

    def __init__(self, settings: CaptionSettings, longest: int, tokenizer: XlmrTokenizer) -> None:
        self.settings, self.tokenizer = settings, tokenizer
        self.search = BeamSearchSettings(settings.num_beams, longest, settings.length_penalty)

    def set_num_beams(self, num_beams: int) -> None:
        """Follow so many captions at once from now on."""
        self.search = replace(self.search, beams=num_beams)

    def loss(self, net: CaptionNet, batch: ModelBatch, step: int) -> Tensor:
        """Smoothed cross-entropy of the hidden words, less the targets' own entropy; the worst may be dropped."""
        losses = masked_token_losses(
            masked_token_logits(net, batch), batch.tensors["words"], self.settings.smoothing
        )
        if step > self.settings.drop_worst_after:
            kept = math.floor(len(losses) * (1 - self.settings.drop_worst))
            losses = losses.topk(kept, largest=False).values
        return losses.mean()

    def answer(self, net: CaptionNet, batch: ModelBatch) -> list[Answer]:
        """The best caption found for each picture, with the geometric mean of its words' probabilities."""
        image = image_transforms.normalise_pixels(batch.tensors["image"])
        found = run_beam_search(net, image, self.search, self.tokenizer.mask)
        return [
            Answer(self.tokenizer.decode(one.words), math.exp(one.total / (len(one.words) + 1)))
            for one in found
        ]


def masked_token_logits(net: CaptionNet, batch: ModelBatch) -> Tensor:
    """Logits of the words to be named, [N, W], in fp32: no other word's are computed."""
    b = batch.tensors
    noise = b["noise"] if net.training else None
    hidden = net.hidden(image_transforms.normalise_pixels(b["image"]), b["tokens"], b["padding"], noise)
    rows, places = b["places"].unbind(1)
    return net.mlm_head(hidden[rows, places]).float()


def masked_token_losses(logits: Tensor, words: Tensor, smoothing: float) -> Tensor:
    """KL divergence of the prediction from the smoothed target, per word.

    The target has 1 - e on the word and e / (W - 1) on every other.

    Args:
        logits: [N, W].
        words: [N], the right ids.
        smoothing: e.
    """
    others = logits.shape[1] - 1
    predicted = logits.log_softmax(-1)
    right = predicted.gather(1, words[:, None]).squeeze(1)
    rest = predicted.sum(-1) - right
    losses = -(1 - smoothing) * right - smoothing / others * rest
    if smoothing:
        losses = losses + (1 - smoothing) * math.log(1 - smoothing) + smoothing * math.log(smoothing / others)
    return losses
