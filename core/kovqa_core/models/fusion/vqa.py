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
from kovqa_core.files import to_nfc
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.fusion import losses
from kovqa_core.models.fusion.config import ModelConfig
from kovqa_core.models.fusion.network import FusionNet
from kovqa_core.models.fusion.tokenizer import QuestionTokenizer
from kovqa_core.models.image_pipeline import ImagePipeline
from kovqa_core.models.xlmr_tokenizer import pad_token_ids
from kovqa_core.settings.recipe import DataSettings


@dataclass(frozen=True)
class FusionItem:
    """One encoded example."""

    id: str
    image: np.ndarray  # uint8 [3, S, S]
    tokens: list[int]
    target: int  # class of the best answer, or NO_CLASS


class FusionProcessor:
    """Pictures, questions and answers -> batches."""

    def __init__(
        self, config: ModelConfig, text: QuestionTokenizer, answers: list[str], data: DataSettings
    ) -> None:
        self.config, self.text, self.answers = config, text, answers
        self._label = {answer: i for i, answer in enumerate(answers)}
        self._images = ImagePipeline(config.image_size, data, Resampling[config.resample.upper()])

    def encode(self, example: Example, images: Path, *, train: bool, rng: np.random.Generator) -> FusionItem:
        """One example; errors name its id."""
        image = self._images.load_image(example, images, train=train, rng=rng)
        known = [answer for answer in example.answers if answer in self._label]
        best = max(known, key=lambda answer: example.answers[answer], default=None)
        target = losses.NO_CLASS if best is None else self._label[best]
        return FusionItem(
            example.id,
            image,
            self.text.encode_with_specials(to_nfc(example.question), self.config.max_text),
            target,
        )

    def collate(self, items: Sequence[FusionItem]) -> ModelBatch:
        """Text is padded to the longest question here."""
        pad = self.config.question_config.get("pad_token_id") or 0
        tokens, padding = pad_token_ids([item.tokens for item in items], pad)
        return ModelBatch(
            {
                "image": torch.from_numpy(np.stack([item.image for item in items])),
                "tokens": tokens,
                "padding": padding,
                "targets": torch.tensor([item.target for item in items]),
            },
            [item.id for item in items],
        )


def fusion_logits(net: FusionNet, batch: ModelBatch) -> Tensor:
    """[B, C] in fp32."""
    b = batch.tensors
    return net(normalise_by_mean_std(b["image"], net.config), b["tokens"], b["padding"]).float()


def normalise_by_mean_std(image: Tensor, config: ModelConfig) -> Tensor:
    """uint8 pixels -> the encoder's mean and deviation, fp32; what is floating already passes."""
    if image.is_floating_point():
        return image
    mean, std = (image.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (config.mean, config.std))
    return (image.to(torch.float32) / 255 - mean) / std


def fusion_loss(net: FusionNet, batch: ModelBatch) -> Tensor:
    """The configured loss of a batch."""
    config, weight = net.config, net.class_weight
    found, targets = fusion_logits(net, batch), batch.tensors["targets"]
    if config.loss == "ce":
        value = losses.class_cross_entropy(found, targets, weight, config.smoothing)
    else:
        kind = losses.focal_loss if config.loss == "focal" else losses.original_focal_loss
        value = kind(found, targets, config.gamma, weight, config.smoothing)
    return losses.scale_gradient_by_loss(value) if config.gradient_times_loss else value


def best_class_answers(net: FusionNet, answers: Sequence[str], batch: ModelBatch) -> list[Answer]:
    """The most likely class of each, with its probability."""
    best = fusion_logits(net, batch).softmax(1).max(1)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [Answer(answers[i], min(score, 1.0)) for i, score in pairs]
