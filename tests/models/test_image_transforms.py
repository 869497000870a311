"""Pictures of every kind are opened; those that cannot be are named; randomness is an argument."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.data.image_io import open_image
from kovqa_core.errors import DataError
from kovqa_core.models import image_transforms
from PIL import Image

WIDE, HIGH = 12, 8


@pytest.fixture
def image() -> Image.Image:
    """A smooth gradient, dark to the left and the top."""
    x, y = np.meshgrid(np.linspace(0, 255, WIDE), np.linspace(0, 255, HIGH))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], -1).astype(np.uint8))


def opened(image: Image.Image, path: Path, **options: object) -> np.ndarray:
    """Saved and opened again, [height, width, 3]."""
    image.save(path, **options)
    rgb = open_image(path)
    assert rgb.mode == "RGB"
    return np.asarray(rgb)


# ----------------------------------------------------------------------------- kinds of files


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_rgb(image: Image.Image, tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(opened(image, tmp_path / f"a.{suffix}", **options), np.asarray(image))


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey(image: Image.Image, tmp_path: Path, mode: str) -> None:
    grey = image.convert("L").convert(mode)
    expected = np.asarray(grey.convert("L"))
    pixels = opened(grey, tmp_path / "a.png")
    assert all(np.array_equal(pixels[..., channel], expected) for channel in range(3))


def test_palette(image: Image.Image, tmp_path: Path) -> None:
    palette = image.quantize(8)
    assert np.array_equal(opened(palette, tmp_path / "a.png"), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("side", [None, 4])
def test_cmyk_jpeg(tmp_path: Path, side: int | None) -> None:
    Image.new("CMYK", (64, 48), (0, 255, 255, 0)).save(tmp_path / "a.jpg")  # red
    smaller = open_image(tmp_path / "a.jpg", side)
    assert smaller.mode == "RGB"
    red, green, blue = np.asarray(smaller).reshape(-1, 3).mean(0)
    assert red > 200
    assert max(green, blue) < 60


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    """0…65535 over the whole range, not cut at 255."""
    values = np.linspace(0, 65535, WIDE * HIGH).reshape(HIGH, WIDE).astype(np.uint16)
    pixels = opened(Image.fromarray(values), tmp_path / "a.png")
    assert np.abs(pixels[..., 0] - values / 257.0).max() <= 0.51
    assert pixels.min() == 0
    assert pixels.max() == 255


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_rotated_image_is_put_upright(image: Image.Image, tmp_path: Path, suffix: str) -> None:
    """Orientation 6: the camera lay on its side; a turn to the right puts it up again."""
    large = image.resize((WIDE * 8, HIGH * 8))
    pixels = opened(large, tmp_path / f"a.{suffix}", exif=exif(6))
    assert pixels.shape == (WIDE * 8, HIGH * 8, 3)
    upright = np.asarray(large.transpose(Image.Transpose.ROTATE_270), np.int32)
    assert np.abs(pixels - upright).mean() < 4


def test_sixteen_bits_and_rotated(tmp_path: Path) -> None:
    deep = Image.fromarray(np.zeros((HIGH, WIDE), np.uint16))
    assert opened(deep, tmp_path / "a.png", exif=exif(6)).shape == (WIDE, HIGH, 3)


def test_one_pixel(tmp_path: Path) -> None:
    assert opened(Image.new("RGB", (1, 1), (1, 2, 3)), tmp_path / "a.png").tolist() == [[[1, 2, 3]]]


def test_a_jpeg_may_be_decoded_smaller(image: Image.Image, tmp_path: Path) -> None:
    image.resize((1200, 800)).save(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg").size == (1200, 800)
    small = open_image(tmp_path / "a.jpg", 100)
    assert small.width < 1200
    assert min(small.size) >= 100


# ------------------------------------------------------------------------ files that are none


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png() -> bytes:
    """A few bytes that claim to be 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [None, 16])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read"),
        (b"<html>404 Not Found</html>", "cannot be read"),
        (b"\xff\xd8\xff\xe0", "cannot be read"),
        (huge_png(), "is too large"),
    ],
    ids=["empty", "text", "header only", "bomb"],
)
def test_a_file_that_is_no_image_is_named(
    tmp_path: Path, content: bytes, says: str, side: int | None
) -> None:
    path = tmp_path / "사진.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_image(path, side)
    assert str(path) in caught.value.message
    assert says in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_image_that_is_cut_off_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError) as caught:
        open_image(path)
    assert caught.value.message.startswith(f"image {path} cannot be read")


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image .*nothing\.jpg is missing"):
        open_image(tmp_path / "nothing.jpg")


# --------------------------------------------------------------------------------- to tensors


def test_normalised_is_from_minus_one_to_one() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8)
    assert image_transforms.normalise_pixels(pixels).tolist() == [-1.0, 1.0]
    already = torch.tensor([0.25])
    assert image_transforms.normalise_pixels(already) is already


def test_to_array_puts_colours_first(image: Image.Image) -> None:
    pixels = image_transforms.image_to_array(image)
    assert pixels.shape == (3, HIGH, WIDE)
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels.transpose(1, 2, 0), np.asarray(image))


def test_resize_square_does_not_keep_proportions(image: Image.Image) -> None:
    assert image_transforms.resize_square(image, 5).size == (5, 5)


# --------------------------------------------------------------------------------- randomness


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(image: Image.Image, seed: int) -> bytes:
    rng = generator(seed)
    return image_transforms.rand_augment(
        image_transforms.random_resized_crop(image.resize((48, 32)), 24, rng), rng
    ).tobytes()


def test_the_same_generator_gives_the_same_image(image: Image.Image) -> None:
    assert [drawn(image, seed) for seed in range(20)] == [drawn(image, seed) for seed in range(20)]


def test_another_generator_gives_another_image(image: Image.Image) -> None:
    assert len({drawn(image, seed) for seed in range(20)}) > 15


def test_randomness_comes_from_nowhere_else(image: Image.Image) -> None:
    first = drawn(image, 3)
    np.random.seed(7)
    torch.manual_seed(7)
    assert drawn(image, 3) == first


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (100, 1), (3, 5), (640, 480), (2000, 30)])
def test_a_random_crop_has_the_size_asked_for(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (10, 200, 30))
    for seed in range(20):
        cropped = image_transforms.random_resized_crop(image, 16, generator(seed))
        assert cropped.size == (16, 16)
        assert np.asarray(cropped).reshape(-1, 3).tolist() == [[10, 200, 30]] * 256


def test_a_random_crop_shows_half_to_all_of_the_area() -> None:
    """Each pixel of the image tells where it lies, so a crop tells what it shows."""
    x, y = np.meshgrid(np.arange(200), np.arange(150))
    image = Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))
    shares = []
    for seed in range(60):
        pixels = np.asarray(image_transforms.random_resized_crop(image, 32, generator(seed)), np.float64)
        wide, high = (np.ptp(pixels[..., axis]) * 32 / 31 for axis in (0, 1))
        shares.append(wide * high / (200 * 150))
    assert 0.4 < min(shares) < 0.65
    assert 0.85 < max(shares) < 1.1


def test_flip(image: Image.Image) -> None:
    assert np.array_equal(np.asarray(image_transforms.flip_horizontally(image)), np.asarray(image)[:, ::-1])


@pytest.mark.parametrize("name", list(image_transforms.AUGMENT_OPERATIONS))
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (40, 30)])
def test_every_operation_keeps_the_size(name: str, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (200, 100, 50))
    operation, argument, _ = image_transforms.AUGMENT_OPERATIONS[name]
    for signed in (argument, -argument):
        result = operation(image, signed)
        assert (result.mode, result.size) == ("RGB", size)


def test_randaugment_draws_every_operation_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of ten, each applied with probability one half: each runs in a tenth of the calls."""
    calls: list[str] = []

    def noted(name: str, signed: bool) -> tuple[object, float, bool]:
        return lambda image, amount: calls.append(name + "+-"[amount < 0]) or image, 1.0, signed

    table = {
        name: noted(name, signed) for name, (_, _, signed) in image_transforms.AUGMENT_OPERATIONS.items()
    }
    monkeypatch.setattr(image_transforms, "AUGMENT_OPERATIONS", table)
    rng, image = generator(0), Image.new("RGB", (1, 1))
    for _ in range(4000):
        image_transforms.rand_augment(image, rng)
    for name, (_, _, signed) in table.items():
        plus, minus = calls.count(name + "+"), calls.count(name + "-")
        assert plus + minus == pytest.approx(400, abs=90), name
        assert (plus == pytest.approx(200, abs=70)) if signed else minus == 0, name
