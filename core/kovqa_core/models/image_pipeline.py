"""An image on its way into a model: cropped and augmented for training, resized for answering."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL.Image import Resampling

from kovqa_core.data.example import AskedExample, Example, image_source
from kovqa_core.data.image_io import open_image
from kovqa_core.data.image_source import ImageSource
from kovqa_core.errors import DataError, KovqaError
from kovqa_core.messages import message
from kovqa_core.models import image_transforms
from kovqa_core.settings.recipe import DataSettings

_MAX_CACHE_BYTES = 256 << 20  # decoded images that one process keeps
_MAX_RECENT_BYTES = 64 << 20  # of those that were asked about in memory
_SIDE_WORDS = ("왼쪽", "오른쪽", "좌측", "우측", "left", "right")  # a flip would make these words wrong


class ImagePipeline:
    """Opens images at one side length and with one augmentation; keeps those of tables, which never vary.

    Of images that come in memory it keeps the last ones by their bytes' SHA-256: a picture is asked about several times.

    Args:
        side: S, pixels.
        data: the augmentation of training examples.
        resample: filter of plain resizing; crops are bicubic.
        as_stored: see `open_image`.
    """

    def __init__(
        self,
        side: int,
        data: DataSettings,
        resample: Resampling = Resampling.BICUBIC,
        *,
        as_stored: bool = False,
    ) -> None:
        self.side, self.data, self.resample, self.as_stored = side, data, resample, as_stored
        self._cache: dict[ImageSource, np.ndarray] = {}
        self._free_bytes = _MAX_CACHE_BYTES
        self._recent: dict[bytes, np.ndarray] = {}  # the one used last is the last

    def load_image(
        self, example: Example, images: Path, *, train: bool, rng: np.random.Generator
    ) -> np.ndarray:
        """uint8 [3, S, S] of an example's image.

        Raises:
            DataError: it cannot be read; names the example's id.
        """
        source = image_source(example, images)
        augmented = train and (self.data.augment != "none" or self.data.flip)
        try:
            if augmented:
                return self._augmented(source, example, rng)
            return self._asked(source) if isinstance(example, AskedExample) else self._cached(source)
        except KovqaError as error:
            if not example.id:  # an image that was given by itself
                raise
            raise DataError(
                message("models.example-problem", "id {id}: {problem}", id=example.id, problem=error.message),
                error.hint,
            ) from None

    def _augmented(self, source: ImageSource, example: Example, rng: np.random.Generator) -> np.ndarray:
        # The order of draws from `rng` is part of what a seed means: crop, flip, RandAugment.
        augment, side = self.data.augment, self.side
        # JPEG decodes at a fraction of its size: a crop keeps enough pixels.
        image = open_image(source, 2 * side, as_stored=self.as_stored)
        if augment == "none":
            image = image_transforms.resize_square(image, side, self.resample)
        else:
            image = image_transforms.random_resized_crop(image, side, rng)
        if self.data.flip and rng.random() < 0.5 and not _mentions_side(example):
            image = image_transforms.flip_horizontally(image)
        return image_transforms.image_to_array(
            image_transforms.rand_augment(image, rng) if augment == "randaug" else image
        )

    def _cached(self, source: ImageSource) -> np.ndarray:
        if source not in self._cache:
            pixels = self._resized(source)
            if self._free_bytes < pixels.nbytes:
                return pixels
            self._free_bytes -= pixels.nbytes
            self._cache[source] = pixels
        return self._cache[source]

    def _asked(self, source: ImageSource) -> np.ndarray:
        if isinstance(source, Path):  # the next file of this path may show something else
            return self._resized(source)
        digest = hashlib.sha256(source).digest()
        pixels = self._recent.pop(digest, None)
        if pixels is None:
            pixels = self._resized(source)
        self._recent[digest] = pixels
        if len(self._recent) * pixels.nbytes > _MAX_RECENT_BYTES:  # all are of one size
            del self._recent[next(iter(self._recent))]
        return pixels

    def load_unchanged(self, source: ImageSource) -> np.ndarray:
        """uint8 [3, S, S] of an image, neither augmented nor kept."""
        return self._resized(source)

    def _resized(self, source: ImageSource) -> np.ndarray:
        image = open_image(source, as_stored=self.as_stored)
        return image_transforms.image_to_array(
            image_transforms.resize_square(image, self.side, self.resample)
        )


def _mentions_side(example: Example) -> bool:
    texts = (example.question, *example.answers, *example.captions)
    return any(side in text for text in texts for side in _SIDE_WORDS)
