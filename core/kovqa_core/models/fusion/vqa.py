"""Visual question answering with one right class: examples -> batches -> losses and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor

from kovqa_core.data.answers import class_scores, number_classes
from kovqa_core.data.example import Example, image_source
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.messages import message
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.class_answers import ClassChoices, choice_tensors, find_class_choices
from kovqa_core.models.fusion import losses
from kovqa_core.models.fusion.config import ModelConfig
from kovqa_core.models.fusion.feature_file import FeatureFile
from kovqa_core.models.fusion.network import FusionNet
from kovqa_core.models.fusion.tokenizer import QuestionTokenizer
from kovqa_core.models.image_pipeline import ImagePipeline
from kovqa_core.models.xlmr_tokenizer import pad_token_ids
from kovqa_core.settings.recipe import DataSettings


@dataclass(frozen=True)
class FusionItem:
    """One encoded example."""

    id: str
    image: np.ndarray  # uint8 [3, S, S], or features [P, channels] of a frozen encoder
    tokens: list[int]
    target: int  # class of the highest scored answer, or NO_CLASS
    choices: ClassChoices = ()


class FusionProcessor:
    """Images, questions and answers -> batches.

    Attributes:
        label_of: class -> its label (`number_classes`).
        offers_choices: is a row to be answered with one of its choices?
        features: of a frozen image encoder, which batches hold instead of pixels; None: pixels.
    """

    def __init__(
        self, config: ModelConfig, tokenizer: QuestionTokenizer, answers: list[str], data: DataSettings
    ) -> None:
        self.config, self.tokenizer, self.answers = config, tokenizer, answers
        self.label_of, self.offers_choices = number_classes(answers), False
        self.features: FeatureFile | None = None
        self.pipeline = ImagePipeline(
            config.image_size, data, Resampling[config.resample.upper()], as_stored=config.load_as_stored
        )

    def encode(self, example: Example, images: Path, *, train: bool, rng: np.random.Generator) -> FusionItem:
        """One example; errors name its id."""
        image = self._find_image(example, images, train=train, rng=rng)
        scores = class_scores(self.label_of, example.answers)
        target = max(scores, key=lambda label: scores[label], default=losses.NO_CLASS)
        return FusionItem(
            example.id,
            image,
            self.tokenizer.encode_with_specials(to_nfc(example.question), self.config.max_text),
            target,
            find_class_choices(self.label_of, example) if self.offers_choices and not train else (),
        )

    def _find_image(
        self, example: Example, images: Path, *, train: bool, rng: np.random.Generator
    ) -> np.ndarray:
        if self.features is None:
            return self.pipeline.load_image(example, images, train=train, rng=rng)
        features = self.features.find(image_source(example, images))
        if features is None:
            self.pipeline.load_image(example, images, train=train, rng=rng)  # says what is wrong with it
            raise DataError(
                message(
                    "fusion.no-features",
                    "id {id}: its image could not be read when features were computed",
                    id=example.id,
                ),
                message(
                    "fusion.no-features.hint", "stop, remove {file}, and --resume", file=self.features.path
                ),
            )
        return features

    def collate(self, items: Sequence[FusionItem]) -> ModelBatch:
        """Text is padded to the longest question of the batch."""
        pad = self.config.question_config.get("pad_token_id") or 0
        tokens, padding = pad_token_ids([item.tokens for item in items], pad)
        offered, texts = choice_tensors([item.choices for item in items]) if self.offers_choices else ({}, [])
        return ModelBatch(
            {
                "image": torch.from_numpy(np.stack([item.image for item in items])),
                "tokens": tokens,
                "padding": padding,
                "targets": torch.tensor([item.target for item in items]),
                **offered,
            },
            [item.id for item in items],
            choices=texts,
        )


def fusion_logits(net: FusionNet, batch: ModelBatch) -> Tensor:
    """Logits [B, C] in fp32."""
    tensors = batch.tensors
    return net(tensors["image"], tensors["tokens"], tensors["padding"]).float()


def fusion_loss(net: FusionNet, batch: ModelBatch) -> Tensor:
    """The configured loss of a batch, a scalar."""
    config, weight = net.config, net.class_weight
    logits, targets = fusion_logits(net, batch), batch.tensors["targets"]
    if config.loss == "ce":
        loss = losses.class_cross_entropy(logits, targets, weight, config.smoothing)
    else:
        focal = losses.focal_loss if config.loss == "focal" else losses.original_focal_loss
        loss = focal(logits, targets, config.gamma, weight, config.smoothing)
    return losses.scale_gradient_by_loss(loss) if config.gradient_times_loss else loss
