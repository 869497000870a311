"""Pictures become the original's tensors; each augmentation does what the original's does."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from kovqa_core.data.image_io import open_image
from kovqa_core.models import image_transforms
from PIL import Image
from PIL.Image import Resampling

from tests import parity

EXACT = ("Identity", "AutoContrast", "Equalize", "Brightness")


@functools.cache
def operations() -> dict[str, torch.Tensor]:
    return parity.tensors_of("expected_randaug_ops.safetensors")


def picture(name: str) -> Path:
    """The recorded picture of a name, whatever its suffix."""
    found = sorted(parity.path("images").glob(f"{name}.*"))
    assert found, f"no picture {name} in {parity.path('images')}"
    return found[0]


@functools.cache
def augmented() -> Image.Image:
    """The picture the operations were recorded on: the one that Identity left as it was."""
    recorded = operations()["Identity"].numpy()
    opened = [open_image(path) for path in sorted(parity.path("images").iterdir())]
    same = [image for image in opened if np.array_equal(np.asarray(image), recorded)]
    assert same, "no recorded picture is what Identity gave"
    return same[0]


def normalised(image: Image.Image) -> torch.Tensor:
    return image_transforms.normalise_pixels(torch.from_numpy(image_transforms.image_to_array(image)))


def test_parity_beit3_preprocess() -> None:
    """By this Pillow or by the one it was recorded with: see `parity.resized_by_pillow`."""
    expected = parity.tensors_of("expected_preprocess.safetensors")
    assert expected
    for key, recorded in expected.items():
        name, side = key.rsplit(".", 1)
        image = open_image(picture(name), as_stored=True)
        releases = [
            normalised(each) for each in parity.resized_by_pillow(image, int(side), Resampling.BICUBIC)
        ]
        ours = normalised(image_transforms.resize_square(image, int(side)))
        assert any(torch.equal(ours, each) for each in releases), key
        assert ours.shape == recorded.shape
        assert min((each - recorded).abs().max().item() for each in releases) <= 1e-6, key


def test_parity_beit3_randaugment_knows_the_recorded_operations() -> None:
    """The same names, and a sign for the same of them."""
    recorded = {key.rstrip("+-"): key[-1] in "+-" for key in operations()}
    assert recorded == {name: signed for name, (_, _, signed) in image_transforms.AUGMENT_OPERATIONS.items()}


def test_parity_beit3_randaugment_operations() -> None:
    """Exact, or within 2 grey levels for 99 % of the values where the original used OpenCV."""
    image = augmented()
    for key, recorded in operations().items():
        name = key.rstrip("+-")
        operation, argument, _ = image_transforms.AUGMENT_OPERATIONS[name]
        if name == "Sharpness":  # recorded with values that wrap around at 255; ours are clipped
            ours = image_transforms.adjust_sharpness(image, argument, wrap=True)
        else:
            ours = operation(image, -argument if key.endswith("-") else argument)
        away = np.abs(np.asarray(ours, np.int32) - recorded.numpy().astype(np.int32))
        if name in EXACT:
            assert away.max() == 0, key
        else:
            assert (away <= 2).mean() >= 0.99, f"{key}: {(away > 2).mean():.2%} of the values differ"


def test_parity_beit3_sharpness_differs_from_the_recorded_only_where_that_wraps() -> None:
    """Clipped instead of wrapped: every value is the same, or is 0 or 255."""
    image = augmented()
    operation, argument, _ = image_transforms.AUGMENT_OPERATIONS["Sharpness"]
    ours = np.asarray(operation(image, argument), np.int32)
    wrapped = np.asarray(image_transforms.adjust_sharpness(image, argument, wrap=True), np.int32)
    assert np.isin(ours[ours != wrapped], (0, 255)).all()
