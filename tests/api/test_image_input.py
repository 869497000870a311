"""Images as programs have them are the pixels of their files; what is none is named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from kovqa.image_input import to_image_source
from kovqa_core.data.image_io import open_image
from kovqa_core.errors import DataError, SettingsError
from PIL import Image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 60, 3), np.uint8)
TURNED = Image.Exif()
TURNED[0x0112] = 6


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def files() -> dict[str, bytes]:
    rgb, grey = Image.fromarray(PIXELS), Image.fromarray(PIXELS[:, :, 0])
    clear = rgb.convert("RGBA")
    clear.putalpha(grey)
    few = rgb.quantize(16)
    return {
        "JPEG": encoded(rgb, "JPEG"),
        "JPEG, turned": encoded(rgb, "JPEG", exif=TURNED),
        "PNG, turned": encoded(rgb, "PNG", exif=TURNED),
        "CMYK": encoded(rgb.convert("CMYK"), "JPEG"),
        "RGBA": encoded(clear, "PNG"),
        "LA": encoded(clear.convert("LA"), "PNG"),
        "palette": encoded(few, "PNG", transparency=3),
        "32 bits": encoded(grey.convert("I"), "TIFF"),
        "bits": encoded(rgb.convert("1"), "PNG"),
        "16 bits": encoded(Image.fromarray(RNG.integers(0, 65536, (40, 60), np.uint16)), "PNG"),
        "floats": encoded(rgb.convert("F"), "TIFF"),
        "LAB": encoded(rgb.convert("LAB"), "TIFF"),
        "animation": encoded(few, "GIF", save_all=True, append_images=[few.rotate(90)]),
        "a transparent colour": encoded(rgb, "PNG", transparency=(1, 2, 3)),
    }


@pytest.mark.parametrize("name", files())
def test_an_image_of_pillow_is_read_as_its_file(name: str) -> None:
    data = files()[name]
    source = to_image_source(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(open_image(source)), np.asarray(open_image(data)))


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_an_array_is_its_pixels(channels: tuple[int, ...]) -> None:
    array = np.full((8, 9, *channels), 255, np.uint8)
    array[:4, :, ...] = 7
    if channels == (4,):
        array[..., 3] = 255
    opened = np.asarray(open_image(to_image_source(array)))
    assert opened.shape == (8, 9, 3)
    assert (opened[:4] == 7).all()
    assert (opened[4:] == 255).all()


def test_paths_and_bytes_stay_what_they_are() -> None:
    assert to_image_source("x.png") == to_image_source(Path("x.png")) == Path("x.png")
    assert to_image_source("~/x.png") == Path.home() / "x.png"
    assert to_image_source("~nobody-is-called-so/x.png") == Path("~nobody-is-called-so/x.png")
    assert to_image_source(bytearray(b"ab")) == b"ab"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "an image is a NoneType"),
        (3, "an image is a int"),
        ("https://example.com/x.png", "nothing is fetched here"),
        ("file:///x.png", "nothing is fetched here"),
        ("DATA:image/png;base64,AAAA", "nothing is fetched here"),
        (np.zeros((4, 4)), r"an array of float64 \[4, 4\]"),
        (np.zeros((3, 4, 4), np.uint8), None),
        (np.zeros((4, 4, 2), np.uint8), r"an array of uint8 \[4, 4, 2\]"),
        (np.zeros((0, 4, 3), np.uint8), r"an array of uint8 \[0, 4, 3\]"),
    ],
)
def test_what_is_no_image_is_named(image: object, said: str | None) -> None:
    if said is None:  # nobody can tell channels in front from a picture of four columns with an alpha
        assert isinstance(to_image_source(image), bytes)  # type: ignore[arg-type]
        return
    with pytest.raises(SettingsError, match=said):
        to_image_source(image)  # type: ignore[arg-type]


def test_a_damaged_image_of_pillow_is_no_traceback() -> None:
    image = Image.open(io.BytesIO(files()["JPEG"][:700]))
    with pytest.raises(DataError, match="the image cannot be read"):
        to_image_source(image)
