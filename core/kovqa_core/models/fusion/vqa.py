"""Visual question answering with one right class: examples -> batches -> losses and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor

from kovqa_core.data.example import Answer, Example
from kovqa_core.files import nfc
from kovqa_core.models.batches import Batch
from kovqa_core.models.fusion import losses
from kovqa_core.models.fusion.config import Config
from kovqa_core.models.fusion.network import FusionNet
from kovqa_core.models.fusion.tokenizer import Text
from kovqa_core.models.image_pipeline import Pictures
from kovqa_core.models.xlmr_tokenizer import padded
from kovqa_core.settings.recipe import Data


@dataclass(frozen=True)
class Item:
    """One encoded example."""

    id: str
    image: np.ndarray  # uint8 [3, S, S]
    tokens: list[int]
    target: int  # class of the best answer, or NO_CLASS


class Processor:
    """Pictures, questions and answers -> batches."""

    def __init__(self, config: Config, text: Text, answers: list[str], data: Data) -> None:
        self.config, self.text, self.answers = config, text, answers
        self._label = {answer: i for i, answer in enumerate(answers)}
        self._pictures = Pictures(config.image_size, data, Resampling[config.resample.upper()])

    def encode(self, example: Example, folder: Path, train: bool, rng: np.random.Generator) -> Item:
        """One example; errors name its id."""
        image = self._pictures.of(example, folder, train, rng)
        known = [answer for answer in example.answers if answer in self._label]
        best = max(known, key=lambda answer: example.answers[answer], default=None)
        target = losses.NO_CLASS if best is None else self._label[best]
        return Item(example.id, image, self.text.frame(nfc(example.question), self.config.max_text), target)

    def collate(self, items: Sequence[Item]) -> Batch:
        """Text is padded to the longest question here."""
        pad = self.config.question_config.get("pad_token_id") or 0
        tokens, padding = padded([item.tokens for item in items], pad)
        return Batch(
            {
                "image": torch.from_numpy(np.stack([item.image for item in items])),
                "tokens": tokens,
                "padding": padding,
                "targets": torch.tensor([item.target for item in items]),
            },
            [item.id for item in items],
        )


def logits(net: FusionNet, batch: Batch) -> Tensor:
    """[B, C] in fp32."""
    b = batch.tensors
    return net(normalised(b["image"], net.config), b["tokens"], b["padding"]).float()


def normalised(image: Tensor, config: Config) -> Tensor:
    """uint8 pixels -> the encoder's mean and deviation, fp32; what is floating already passes."""
    if image.is_floating_point():
        return image
    mean, std = (image.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (config.mean, config.std))
    return (image.to(torch.float32) / 255 - mean) / std


def loss(net: FusionNet, batch: Batch) -> Tensor:
    """The configured loss of a batch."""
    config, weight = net.config, net.class_weight
    found, targets = logits(net, batch), batch.tensors["targets"]
    if config.loss == "ce":
        value = losses.cross_entropy(found, targets, weight, config.smoothing)
    else:
        kind = losses.focal if config.loss == "focal" else losses.focal_original
        value = kind(found, targets, config.gamma, weight, config.smoothing)
    return losses.times_loss(value) if config.gradient_times_loss else value


def answer(net: FusionNet, answers: Sequence[str], batch: Batch) -> list[Answer]:
    """The most likely class of each, with its probability."""
    best = logits(net, batch).softmax(1).max(1)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [Answer(answers[i], min(score, 1.0)) for i, score in pairs]
