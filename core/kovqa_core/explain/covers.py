"""Places of an image that are covered, and with what.

An image is divided into GRID_SIDE x GRID_SIDE cells, whatever its proportions. A place is a set of cells, bool
[GRID_SIDE, GRID_SIDE], and what is covered are its pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

GRID_SIDE = 16
_WINDOWS = ((4, 2), (2, 2))  # (side, step) in cells: large ones overlap by half, small ones lie side by side
_BLUR_FRACTION = 8  # a blur reaches over so much of the longer side

MakeCover = Callable[[np.ndarray], np.ndarray]  # uint8 [height, width, 3] -> the same, wholly covered


def cover_windows() -> list[tuple[np.ndarray, ...]]:
    """Of each scale the windows that are covered one after the other."""
    scales = []
    for side, step in _WINDOWS:
        starts = range(0, GRID_SIDE - side + 1, step)
        windows = []
        for top in starts:
            for left in starts:
                cells = np.zeros((GRID_SIDE, GRID_SIDE), bool)
                cells[top : top + side, left : left + side] = True
                windows.append(cells)
        scales.append(tuple(windows))
    return scales


def mean_colour_cover(pixels: np.ndarray) -> np.ndarray:
    """The image's mean colour everywhere."""
    colour = pixels.reshape(-1, 3).mean(0).round().astype(np.uint8)
    return np.broadcast_to(colour, pixels.shape)


def blur_cover(pixels: np.ndarray) -> np.ndarray:
    """The image out of focus."""
    radius = max(pixels.shape[:2]) / _BLUR_FRACTION
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.BoxBlur(radius)))


def cover_cells(pixels: np.ndarray, cover: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """An image with its cover where cells are True, uint8 [height, width, 3]."""
    return np.where(cell_pixels(cells, *pixels.shape[:2])[..., None], cover, pixels)


def cell_pixels(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels of cells: values [height, width] of an image of this size."""
    rows = np.arange(height) * GRID_SIDE // height
    columns = np.arange(width) * GRID_SIDE // width
    return cells[rows][:, columns]


def to_grid(values: np.ndarray) -> np.ndarray:
    """Values of other cells [rows, columns] on the grid, float32 [GRID_SIDE, GRID_SIDE]."""
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((GRID_SIDE, GRID_SIDE), Image.Resampling.BILINEAR))
