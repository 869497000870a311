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
from kovqa_core.files import nfc
from kovqa_core.models import image_transforms
from kovqa_core.models.batches import Batch
from kovqa_core.models.beit3.beam_search import Search, beam_search
from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.beit3.config import Captioning, Config
from kovqa_core.models.image_pipeline import Pictures
from kovqa_core.models.xlmr_tokenizer import UNK, Tokenizer, padded
from kovqa_core.settings.recipe import Data

_MASKED, _KEPT = 0.8, 0.1  # of the words to be named: behind the mask, as they are; the rest at random


@dataclass(frozen=True)
class Item:
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


class Processor:
    """Pictures and captions -> batches."""

    def __init__(self, config: Config, tokenizer: Tokenizer, data: Data) -> None:
        self.config, self.tokenizer, self.data = config, tokenizer, data
        self._pictures = Pictures(config.image_size, data)

    def encode(self, example: Example, folder: Path, train: bool, rng: np.random.Generator) -> Item:
        """One example; of several captions one is drawn. Errors name its id."""
        image = self._pictures.of(example, folder, train, rng)
        if not train:
            return Item(example.id, image, [], [], np.zeros((0, 2), np.float32))
        if not any(caption.strip() for caption in example.captions):
            raise DataError(
                f"id {example.id}: no caption to learn from", "write the index again: kovqa index"
            )
        noise = rng.random((self.config.sizes.num_layers, 2), np.float32)
        caption = example.captions[int(rng.integers(len(example.captions)))]
        tokens = self.tokenizer.frame(nfc(caption), self.config.max_text)
        places = sorted(rng.choice(len(tokens) - 1, masked(len(tokens), self.config.caption.mask), False) + 1)
        wanted = [(int(place), tokens[place]) for place in places]
        return Item(example.id, image, self._hidden(tokens, wanted, rng), wanted, noise)

    def _hidden(
        self, tokens: list[int], wanted: list[tuple[int, int]], rng: np.random.Generator
    ) -> list[int]:
        shown = list(tokens)
        for (place, _), draw in zip(wanted, rng.random(len(wanted)), strict=True):
            if draw < _MASKED:
                shown[place] = self.tokenizer.mask
            elif draw >= _MASKED + _KEPT:
                shown[place] = int(rng.integers(UNK, self.tokenizer.mask))
        return shown

    def collate(self, items: Sequence[Item]) -> Batch:
        """Captions are padded to the longest here."""
        tensors: dict[str, Tensor | None] = {
            "image": torch.from_numpy(np.stack([item.image for item in items])),
            "noise": torch.from_numpy(np.stack([item.noise for item in items])),
        }
        if items[0].tokens:
            tensors["tokens"], tensors["padding"] = padded([item.tokens for item in items])
            rows = [(row, place) for row, item in enumerate(items) for place, _ in item.wanted]
            tensors["places"] = torch.tensor(rows)
            tensors["words"] = torch.tensor([word for item in items for _, word in item.wanted])
        return Batch(tensors, [item.id for item in items])


def masked(length: int, probability: float) -> int:
    """How many of a caption's words are to be named; `length` counts `<s>`, which never is."""
    return max(1, min(math.floor(length * probability + 0.5), length - 1))


class Caption:
    """The task: a sentence for every picture.

    Args:
        settings: how it is learned and sought.
        longest: tokens of a caption.
        tokenizer: ids and their texts.
    """

    def __init__(self, settings: Captioning, longest: int, tokenizer: Tokenizer) -> None:
        self.settings, self.tokenizer = settings, tokenizer
        self.search = Search(settings.num_beams, longest, settings.length_penalty)

    def beams(self, number: int) -> None:
        """Follow so many captions at once from now on."""
        self.search = replace(self.search, beams=number)

    def loss(self, net: CaptionNet, batch: Batch, step: int) -> Tensor:
        """Smoothed cross-entropy of the hidden words, less the targets' own entropy; the worst may be dropped."""
        losses = word_losses(word_logits(net, batch), batch.tensors["words"], self.settings.smoothing)
        if step > self.settings.drop_worst_after:
            kept = math.floor(len(losses) * (1 - self.settings.drop_worst))
            losses = losses.topk(kept, largest=False).values
        return losses.mean()

    def answer(self, net: CaptionNet, batch: Batch) -> list[Answer]:
        """The best caption found for each picture, with the geometric mean of its words' probabilities."""
        image = image_transforms.normalised(batch.tensors["image"])
        found = beam_search(net, image, self.search, self.tokenizer.mask)
        return [
            Answer(self.tokenizer.decode(one.words), math.exp(one.total / (len(one.words) + 1)))
            for one in found
        ]


def word_logits(net: CaptionNet, batch: Batch) -> Tensor:
    """Logits of the words to be named, [N, W], in fp32: no other word's are computed."""
    b = batch.tensors
    noise = b["noise"] if net.training else None
    hidden = net.hidden(image_transforms.normalised(b["image"]), b["tokens"], b["padding"], noise)
    rows, places = b["places"].unbind(1)
    return net.mlm_head(hidden[rows, places]).float()


def word_losses(logits: Tensor, words: Tensor, smoothing: float) -> Tensor:
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
