"""Drawn scenes for the offline demonstration: what is in an image, and how it is painted.

A scene holds one to five things, each a shape of a colour and a size.  Lengths are in pixels of a
256-pixel image, the origin is the upper left corner, and "left" is the viewer's left.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFilter

RgbColour = tuple[int, int, int]
OutlinePoints = tuple[tuple[float, float], ...]

IMAGE_SIDE = 256
GRID_CELLS = 3  # cells along each side; a cell is one of the nine places a thing can be in
CELL_SIDE = IMAGE_SIDE / GRID_CELLS
SHAPE_NAMES = ("원", "삼각형", "사각형", "별", "하트")
SHAPE_COLOURS: dict[str, RgbColour] = {
    "분홍색": (255, 128, 150),
    "하늘색": (128, 186, 255),
    "연두색": (142, 246, 118),
    "노란색": (255, 240, 112),
    "보라색": (196, 128, 255),
    "하얀색": (255, 255, 252),
}
REGION_NAMES = (
    ("왼쪽 위", "위쪽", "오른쪽 위"),
    ("왼쪽", "가운데", "오른쪽"),
    ("왼쪽 아래", "아래쪽", "오른쪽 아래"),
)
# Chalk on slate: half-way between black and white is 0 to the model, so an empty patch says nothing, and
# everything drawn is brighter than the ground. On light grounds the same model needs far more steps.
BACKGROUND_TINTS: tuple[RgbColour, ...] = (
    (125, 127, 130),
    (129, 127, 124),
    (124, 128, 126),
    (128, 125, 128),
    (126, 126, 131),
)
COUNT_WEIGHTS = (3, 3, 2, 1, 1)  # how often one, two, ... things: mostly few, which is quicker to learn
CELL_SLACK = (3.0, 6.0)  # how far a large and a small thing may stray from the middle of its cell
MAX_TURN_DEGREES = 7.0  # degrees
SUBPIXEL_SAMPLES = 4  # sub-pixels along each axis of one pixel


@dataclass(frozen=True)
class SceneObject:
    """One drawn object.

    `x`, `y` is its centre, `radius` half its extent (pixels of a 256-pixel image), `turn` its
    rotation in degrees counter-clockwise, and `fill` the colour it is really painted in, a little
    off the pure one that `colour` names.
    """

    shape: str
    colour: str
    large: bool
    x: float
    y: float
    radius: float
    turn: float
    fill: RgbColour

    @property
    def column(self) -> int:
        """The third of the image its centre lies in, 0 to 2 from the left."""
        return int(self.x // CELL_SIDE)

    @property
    def row(self) -> int:
        """The third of the image its centre lies in, 0 to 2 from the top."""
        return int(self.y // CELL_SIDE)

    @property
    def region(self) -> str:
        """Which ninth of the image it is in, in Korean."""
        return REGION_NAMES[self.row][self.column]


@dataclass(frozen=True)
class Scene:
    """An image to paint: its things, in painting order, and the tint behind them."""

    things: tuple[SceneObject, ...]
    background: RgbColour


def make_scene(rng: random.Random) -> Scene:
    """A scene of one to five things that do not overlap, drawn from `rng` alone."""
    looks = _choose_looks(rng, rng.choices((1, 2, 3, 4, 5), COUNT_WEIGHTS)[0])
    # One cell each: things never overlap, and of any two one is left of or above the other.
    cells = rng.sample(range(GRID_CELLS * GRID_CELLS), len(looks))
    things = [
        _place_object(rng, shape, colour, cell) for (shape, colour), cell in zip(looks, cells, strict=True)
    ]
    tint = rng.choice(BACKGROUND_TINTS)
    shift = rng.randint(-1, 1)
    return Scene(tuple(things), _shift_colour(tint, shift))


def _choose_looks(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """(shape, colour) of `count` things.  Half the scenes repeat a shape or a colour, so that there is
    something to count and a question must sometimes name both to be clear."""
    shapes = rng.sample(SHAPE_NAMES, count)
    colours = rng.sample(tuple(SHAPE_COLOURS), count)
    if count > 1 and rng.random() < 0.55:
        repeated = rng.randint(2, count)
        values = shapes if rng.random() < 0.5 else colours
        values[:repeated] = [values[0]] * repeated
    looks = list(zip(shapes, colours, strict=True))
    rng.shuffle(looks)
    return looks


def _place_object(rng: random.Random, shape: str, colour: str, cell: int) -> SceneObject:
    """Put a thing near the middle of a cell; small ones have more room to wander."""
    large = rng.random() < 0.5
    slack = CELL_SLACK[0 if large else 1]
    row, column = divmod(cell, GRID_CELLS)
    red, green, blue = (_clamp_byte(channel + rng.randint(-7, 7)) for channel in SHAPE_COLOURS[colour])
    return SceneObject(
        shape=shape,
        colour=colour,
        large=large,
        x=round((column + 0.5) * CELL_SIDE + rng.uniform(-slack, slack), 2),
        y=round((row + 0.5) * CELL_SIDE + rng.uniform(-slack, slack), 2),
        radius=round(rng.uniform(36.0, 38.0) if large else rng.uniform(23.5, 25.5), 2),
        turn=round(rng.uniform(-MAX_TURN_DEGREES, MAX_TURN_DEGREES), 1),
        fill=(red, green, blue),
    )


def paint_scene(scene: Scene, side: int = IMAGE_SIDE) -> Image.Image:
    """The scene as an RGB image of `side` by `side` pixels.

    Raises:
        ValueError: `side` is not at least one pixel.
    """
    if side < 1:
        raise ValueError(f"an image needs at least one pixel a side, got {side}")
    scale = side / IMAGE_SIDE
    # A copy: the backdrop is cached, and painting on it would show in the next scene.
    image = _paint_backdrop(scene.background, side).copy()
    for thing in scene.things:
        _paint_object(image, thing, scale)
    return image


@lru_cache(maxsize=256)
def _paint_backdrop(tint: RgbColour, side: int) -> Image.Image:
    """A wash that is lighter at the top, so that images look less bare."""
    column = Image.new("RGB", (1, 2))
    column.putpixel((0, 0), _shift_colour(tint, 3))
    column.putpixel((0, 1), _shift_colour(tint, -5))
    return column.resize((side, side), Image.Resampling.BILINEAR)


def _paint_object(image: Image.Image, thing: SceneObject, scale: float) -> None:
    radius = thing.radius * scale
    half = math.ceil(radius * 1.3) + 2
    left, top = math.floor(thing.x * scale), math.floor(thing.y * scale)
    centre = (half + thing.x * scale - left, half + thing.y * scale - top)
    corner = (left - half, top - half)
    mask = _shape_mask(thing.shape, centre, radius, thing.turn, 2 * half)
    drop = max(1, round(radius / 11))
    shadow = mask.filter(ImageFilter.BoxBlur(max(1, radius / 12))).point(_SHADOW_TABLE)
    image.paste((40, 44, 60), (corner[0] + drop // 2, corner[1] + drop), shadow)
    image.paste(_shift_colour(thing.fill, -24), corner, mask)
    inner = _shape_mask(thing.shape, centre, radius * 0.9, thing.turn, 2 * half)
    image.paste(thing.fill, corner, inner)


_SHADOW_TABLE = [value * 36 // 255 for value in range(256)]


def _shape_mask(
    shape: str, centre: tuple[float, float], radius: float, turn: float, size: int
) -> Image.Image:
    """Coverage of a shape in a `size` by `size` window, 0 to 255, drawn large and averaged down."""
    canvas = Image.new("L", (size * SUBPIXEL_SAMPLES, size * SUBPIXEL_SAMPLES), 0)
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    outline = [
        (
            (centre[0] + radius * (px * cosine + py * sine)) * SUBPIXEL_SAMPLES,
            (centre[1] + radius * (py * cosine - px * sine)) * SUBPIXEL_SAMPLES,
        )
        for px, py in _shape_outline(shape)
    ]
    ImageDraw.Draw(canvas).polygon(outline, fill=255)
    # Pillow draws polygons without smooth edges: averaging 4 × 4 sub-pixels gives them.
    return canvas.reduce(SUBPIXEL_SAMPLES)


@lru_cache(maxsize=len(SHAPE_NAMES))
def _shape_outline(shape: str) -> OutlinePoints:
    """Corner points of a shape about the origin, within about one unit, y downwards."""
    if shape == "원":
        return _arc_points(0.0, 0.0, 0.94, 0.0, 360.0)
    if shape == "사각형":
        return ((-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86))
    if shape == "삼각형":
        return ((0.0, -0.98), (1.0, 0.8), (-1.0, 0.8))
    if shape == "별":
        return tuple(
            (r * math.sin(math.radians(36 * i)), 0.06 - r * math.cos(math.radians(36 * i)))
            for i, r in enumerate((1.08, 0.46) * 5)
        )
    if shape == "하트":
        return tuple(_heart_point(math.radians(6 * i)) for i in range(60))
    raise ValueError(f"no such shape: {shape}")


def _arc_points(cx: float, cy: float, radius: float, start: float, stop: float) -> OutlinePoints:
    """Points on a circle from `start` to `stop` degrees, clockwise from the right on the screen."""
    steps = 40
    angles = (math.radians(start + (stop - start) * i / steps) for i in range(steps + 1))
    return tuple((cx + radius * math.cos(a), cy + radius * math.sin(a)) for a in angles)


def _heart_point(angle: float) -> tuple[float, float]:
    x = 16 * math.sin(angle) ** 3
    y = 13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle) - math.cos(4 * angle)
    return x / 16.5, -(y + 2.5) / 16.0


def _shift_colour(colour: RgbColour, amount: int) -> RgbColour:
    red, green, blue = (_clamp_byte(channel + amount) for channel in colour)
    return red, green, blue


def _clamp_byte(value: int) -> int:
    return max(0, min(255, value))
