"""A picture on its way into a model: cropped and varied for training, squeezed for answering."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL.Image import Resampling

from kovqa_core.data.example import Example
from kovqa_core.data.image_io import open_image
from kovqa_core.errors import DataError, KovqaError
from kovqa_core.models import image_transforms
from kovqa_core.settings.recipe import DataSettings

_MAX_CACHE_BYTES = 256 << 20  # decoded pictures a process may keep
_SIDE_WORDS = ("왼쪽", "오른쪽", "좌측", "우측", "left", "right")  # mirroring would make these words wrong


class ImagePipeline:
    """Opens pictures for one side length and one way of varying them; keeps what stays the same."""

    def __init__(self, side: int, data: DataSettings, resample: Resampling = Resampling.BICUBIC) -> None:
        self.side, self.data, self.resample = side, data, resample
        self._decoded: dict[Path, np.ndarray] = {}
        self._room = _MAX_CACHE_BYTES

    def of(self, example: Example, folder: Path, *, train: bool, rng: np.random.Generator) -> np.ndarray:
        """uint8 [3, S, S]; errors name the example's id."""
        path = folder / example.image
        varied = train and (self.data.augment != "none" or self.data.flip)
        try:
            return self._varied(path, example, rng) if varied else self._plain(path)
        except KovqaError as error:
            raise DataError(f"id {example.id}: {error.message}", error.hint) from None

    def _varied(self, path: Path, example: Example, rng: np.random.Generator) -> np.ndarray:
        augment, side = self.data.augment, self.side
        image = open_image(path, 2 * side)
        if augment == "none":
            image = image_transforms.resize_square(image, side, self.resample)
        else:
            image = image_transforms.random_resized_crop(image, side, rng)
        if self.data.flip and rng.random() < 0.5 and not _mentions_side(example):
            image = image_transforms.flip_horizontally(image)
        return image_transforms.image_to_array(
            image_transforms.rand_augment(image, rng) if augment == "randaug" else image
        )

    def _plain(self, path: Path) -> np.ndarray:
        if path not in self._decoded:
            pixels = image_transforms.image_to_array(
                image_transforms.resize_square(open_image(path), self.side, self.resample)
            )
            if self._room < pixels.nbytes:
                return pixels
            self._room -= pixels.nbytes
            self._decoded[path] = pixels
        return self._decoded[path]


def _mentions_side(example: Example) -> bool:
    texts = (example.question, *example.answers, *example.captions)
    return any(side in text for text in texts for side in _SIDE_WORDS)
