"""Visual question answering over an answer list: examples -> batches -> losses and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kovqa_core.data.answers import class_scores, number_classes
from kovqa_core.data.example import Example
from kovqa_core.files import to_nfc
from kovqa_core.models import image_transforms
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.beit3.config import ModelConfig
from kovqa_core.models.beit3.network import Beit3VqaNet
from kovqa_core.models.class_answers import (
    ClassChoices,
    begin_answers_of,
    choice_tensors,
    find_class_choices,
)
from kovqa_core.models.family import ReadAnswers
from kovqa_core.models.image_pipeline import ImagePipeline
from kovqa_core.models.xlmr_tokenizer import XlmrTokenizer, pad_token_ids
from kovqa_core.settings.recipe import DataSettings


@dataclass(frozen=True)
class Beit3VqaItem:
    """One encoded example."""

    id: str
    image: np.ndarray  # uint8 [3, S, S]
    tokens: list[int]
    labels: list[tuple[int, float]]  # (class, score)
    noise: np.ndarray  # float32 [layers, 2], uniform in 0…1, decides drop path; [0, 2] when not training
    choices: ClassChoices = ()


class Beit3VqaProcessor:
    """Images, questions and answers -> batches.

    Attributes:
        label_of: class -> its label (`number_classes`).
        offers_choices: is a row to be answered with one of its choices?
    """

    def __init__(
        self, config: ModelConfig, tokenizer: XlmrTokenizer, answers: list[str], data: DataSettings
    ) -> None:
        self.config, self.tokenizer, self.answers, self.data = config, tokenizer, answers, data
        self.label_of, self.offers_choices = number_classes(answers), False
        self._images = ImagePipeline(config.image_size, data, as_stored=config.load_as_stored)

    def encode(
        self, example: Example, images: Path, *, train: bool, rng: np.random.Generator
    ) -> Beit3VqaItem:
        """One example; errors name its id."""
        image = self._images.load_image(example, images, train=train, rng=rng)
        labels = list(class_scores(self.label_of, example.answers).items())
        noise = (
            rng.random((self.config.dimensions.num_layers, 2), np.float32)
            if train
            else np.zeros((0, 2), np.float32)
        )
        tokens = self.tokenizer.encode_with_specials(to_nfc(example.question), self.config.max_text)
        choices = find_class_choices(self.label_of, example) if self.offers_choices and not train else ()
        return Beit3VqaItem(example.id, image, tokens, labels, noise, choices)

    def collate(self, items: Sequence[Beit3VqaItem]) -> ModelBatch:
        """Text is padded to the longest question of the batch, not to `max_text`."""
        tokens, padding = pad_token_ids([item.tokens for item in items])
        # Labels travel as (row, class) pairs: [B, C] would be mostly zeros, through a queue between processes.
        offered, texts = choice_tensors([item.choices for item in items]) if self.offers_choices else ({}, [])
        positions = [(row, label) for row, item in enumerate(items) for label, _ in item.labels]
        return ModelBatch(
            {
                "image": torch.from_numpy(np.stack([item.image for item in items])),
                "tokens": tokens,
                "padding": padding,
                "noise": torch.from_numpy(np.stack([item.noise for item in items])),
                "label_positions": torch.tensor(positions, dtype=torch.long).reshape(-1, 2),
                "label_scores": torch.tensor([score for item in items for _, score in item.labels]),
                **offered,
            },
            [item.id for item in items],
            choices=texts,
        )


class VqaTask:
    """The task: a class of the answer list for every question.

    Args:
        answers: the classes.
    """

    def __init__(self, answers: list[str]) -> None:
        self.answers, self.top_k = answers, 1

    def loss(self, net: Beit3VqaNet, batch: ModelBatch, step: int) -> Tensor:
        """Binary cross-entropy summed over classes, averaged over examples, in fp32."""
        logits = beit3_vqa_logits(net, batch)
        labels = torch.zeros(logits.shape, device=logits.device)  # [B, C]
        rows, classes = batch.tensors["label_positions"].unbind(1)
        labels[rows, classes] = batch.tensors["label_scores"]
        return vqa_loss(logits, labels)

    def begin_answers(self, net: Beit3VqaNet, batch: ModelBatch) -> ReadAnswers:
        """The most likely class of each, with its probability."""
        return begin_answers_of(batch, self.answers, beit3_vqa_logits(net, batch), torch.sigmoid, self.top_k)


def beit3_vqa_logits(net: Beit3VqaNet, batch: ModelBatch) -> Tensor:
    """Logits [B, C] in fp32; drop path only while the network trains."""
    tensors = batch.tensors
    image = image_transforms.normalise_pixels(tensors["image"])
    noise = tensors["noise"] if net.training else None
    return net(image, tensors["tokens"], tensors["padding"], noise).float()


def vqa_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of logits [B, C] against soft labels [B, C], summed over C, averaged over B."""
    # The mean over B · C, times C: as the original computes it.
    return functional.binary_cross_entropy_with_logits(logits, labels) * labels.shape[1]
