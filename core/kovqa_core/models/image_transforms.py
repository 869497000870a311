"""Images: crop, resize, augment. RGB, 8 bit; all randomness comes from an argument.

Numbers follow the published fine-tuning code of BEiT-3 (docs/sources/beit3.md, B32 to B34): bicubic, mean and
standard deviation 0.5, random crops of half to all of the area, ten mild RandAugment operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

NumpyGenerator = np.random.Generator
GREY_FILL = (128, 128, 128)  # what comes in where an operation moves the image away


def image_to_array(image: Image.Image) -> np.ndarray:
    """RGB image -> uint8 [3, height, width]."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def normalise_pixels(image: Tensor) -> Tensor:
    """uint8 pixels [..., S, S] -> -1…1 in fp32; floating values are normalised already and pass."""
    return image if image.is_floating_point() else (image.to(torch.float32) / 255 - 0.5) / 0.5


def resize_square(
    image: Image.Image, side: int, resample: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    """Resize to side × side; proportions are not kept, as in the originals."""
    return image.resize((side, side), resample)


def random_resized_crop(image: Image.Image, side: int, rng: NumpyGenerator) -> Image.Image:
    """Half to all of the area, proportions 3:4 to 4:3, resized to side × side."""
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(0.5, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
    ratio = min(max(width / height, 3 / 4), 4 / 3)
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))


def flip_horizontally(image: Image.Image) -> Image.Image:
    """Left to right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


# ------------------------------------------------------------------------------- RandAugment


def _adjust_brightness(image: Image.Image, factor: float) -> Image.Image:
    return image.point([min(255, int(value * factor)) for value in range(256)] * 3)


def adjust_sharpness(image: Image.Image, factor: float, *, wrap: bool = False) -> Image.Image:
    """Move away from a smoothed copy; the outermost pixels stay.

    Args:
        image: RGB.
        factor: 0: the smoothed copy; 1: the image itself.
        wrap: for comparison with the original only: values beyond 0…255 wrap around there, which
            sprinkles bright images with dark specks.
    """
    pixels = np.asarray(image, np.float32)
    smooth = np.asarray(image.filter(ImageFilter.SMOOTH), np.float32)
    sharp = smooth + factor * (pixels - smooth)
    sharp = sharp.astype(np.int32).astype(np.uint8) if wrap else sharp.clip(0, 255).astype(np.uint8)
    sharp[[0, -1]], sharp[:, [0, -1]] = pixels[[0, -1]], pixels[:, [0, -1]]
    return Image.fromarray(sharp)


def _affine_warp(image: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    """Bilinear warp; `matrix` takes a pixel of the result to one of the image (centres at integers)."""
    pad = 2  # so that the rim fades into grey instead of ending sharply
    a, b, c, d, e, f = matrix
    # Pillow puts centres at half integers and the padding moves the origin: both go into the offsets.
    padded = ImageOps.expand(image, pad, fill=GREY_FILL)
    data = (a, b, c + pad + 0.5 - 0.5 * (a + b), d, e, f + pad + 0.5 - 0.5 * (d + e))
    return padded.transform(
        image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=GREY_FILL
    )


def _shear_x(image: Image.Image, amount: float) -> Image.Image:
    return _affine_warp(image, (1, -amount, 0, 0, 1, 0))


def _shear_y(image: Image.Image, amount: float) -> Image.Image:
    return _affine_warp(image, (1, 0, 0, -amount, 1, 0))


def _translate_x(image: Image.Image, pixels: float) -> Image.Image:
    # Absolute pixels whatever the image's size, and a positive number moves to the left: as recorded.
    return _affine_warp(image, (1, 0, pixels, 0, 1, 0))


def _translate_y(image: Image.Image, pixels: float) -> Image.Image:
    return _affine_warp(image, (1, 0, 0, 0, 1, pixels))


def _rotate_image(image: Image.Image, degrees: float) -> Image.Image:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = image.width / 2, image.height / 2
    return _affine_warp(image, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))


# Name -> (operation, its argument at magnitude 7 of 10, may the argument be negative). The order is the
# original's: `rand_augment` draws by number.
AUGMENT_OPERATIONS: dict[str, tuple[Callable[[Image.Image, float], Image.Image], float, bool]] = {
    "Identity": (lambda image, _: image, 0.0, False),
    "AutoContrast": (lambda image, _: ImageOps.autocontrast(image), 0.0, False),
    "Equalize": (lambda image, _: ImageOps.equalize(image), 0.0, False),
    "Brightness": (_adjust_brightness, 0.7 * 1.8 + 0.1, False),
    "Sharpness": (adjust_sharpness, 0.7 * 1.8 + 0.1, False),
    "ShearX": (_shear_x, 0.7 * 0.3, True),
    "ShearY": (_shear_y, 0.7 * 0.3, True),
    "TranslateX": (_translate_x, 7.0, True),
    "TranslateY": (_translate_y, 7.0, True),
    "Rotate": (_rotate_image, 0.7 * 30, True),
}


def rand_augment(image: Image.Image, rng: NumpyGenerator) -> Image.Image:
    """Two operations drawn with replacement, each applied half of the time (docs/sources/beit3.md, B34).

    Args:
        image: RGB, any size; it keeps its size.
        rng: drawn from in a fixed order: two operations, then for each (is it applied, is it negative), so
            that an example's augmentation depends on nothing but its seed.
    """
    names = list(AUGMENT_OPERATIONS)
    for index in rng.integers(0, len(names), 2):
        operation, argument, is_signed = AUGMENT_OPERATIONS[names[index]]
        applied, negative = rng.random(2) < 0.5
        if applied:
            image = operation(image, -argument if is_signed and negative else argument)
    return image
