"""Images of every mode and damage, made here byte by byte: what is read, as what, and how the rest is named."""

from __future__ import annotations

import errno
import io
import os
import re
import resource
import struct
import sys
import types
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kovqa_core.data.image_formats import PILLOW_FORMATS
from kovqa_core.data.image_io import open_image, read_image
from kovqa_core.errors import DataError
from PIL import Image, ImageFile

from tests import parity

WHITE = [255, 255, 255]


def photo(size: tuple[int, int] = (160, 128)) -> Image.Image:
    """Smooth colours with grain: compresses like a photograph."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
    smooth = np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray((smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def opened(data: bytes, path: Path, side: int | None = None, *, as_stored: bool = False) -> np.ndarray:
    path.write_bytes(data)
    pixels = np.asarray(open_image(path, side, as_stored=as_stored))
    from_memory = np.asarray(open_image(data, side, as_stored=as_stored))
    assert np.array_equal(pixels, from_memory), "from memory to the bit what the file gives"
    return pixels


def refusal(data: bytes, path: Path, side: int | None = None) -> DataError:
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        open_image(path, side)
    assert caught.value.message.startswith(f"image {path} cannot be read")
    assert caught.value.hint
    with pytest.raises(DataError) as from_memory:
        open_image(data, side)
    named = from_memory.value.message.replace(f"image of {len(data):,} bytes", f"image {path}")
    assert (named, from_memory.value.hint) == (caught.value.message, caught.value.hint)
    return caught.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "사진.jpg"


# ------------------------------------------------------------------------- PNG beside its pixels


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    crc = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def with_chunk(png: bytes, extra: bytes, *, at_end: bool = False) -> bytes:
    place = len(png) - 12 if at_end else 33  # before IEND, or after IHDR
    return png[:place] + extra + png[place:]


def much_text(kind: bytes, size: int) -> bytes:
    packed = zlib.compress(b"a" * size)
    return {
        b"zTXt": chunk(b"zTXt", b"k\0\0" + packed),
        b"iTXt": chunk(b"iTXt", b"k\0\1\0\0\0" + packed),
        b"tEXt": chunk(b"tEXt", b"k\0" + b"a" * size),
        b"iCCP": chunk(b"iCCP", b"k\0\0" + packed),
    }[kind]


TURNED = b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHHI", 0x0112, 3, 1, 6, 0, 0)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"eXIf", b"\0\x08\0\2"),
        chunk(b"eXIf", b""),
        chunk(b"eXIf", b"Exif\0\0II*\0\xff\xff\xff\xff"),
        much_text(b"zTXt", 2 << 20),
        much_text(b"iTXt", 2 << 20),
        much_text(b"iCCP", 2 << 20),
        much_text(b"zTXt", 1 << 20) * 70,
        much_text(b"tEXt", 3 << 20),
        chunk(b"tEXt", b"k\0v", checksum=1),
        chunk(b"zTXt", b"k\0\0not deflate"),
        chunk(b"tIME", b""),
    ],
    ids=["exif no tiff", "exif empty", "exif astray", "ztxt 2 MiB", "itxt 2 MiB", "icc 2 MiB",
         "ztxt 70 MiB", "text 3 MiB", "text checksum", "ztxt broken", "time empty"],
)  # fmt: skip
@pytest.mark.parametrize("at_end", [False, True], ids=["before", "behind"])
def test_what_stands_beside_the_pixels_of_a_png_may_be_broken_or_long(
    path: Path, extra: bytes, at_end: bool
) -> None:
    image = photo((12, 8))
    assert np.array_equal(opened(with_chunk(encoded(image), extra, at_end=at_end), path), np.asarray(image))


def test_a_png_with_much_text_is_still_put_upright(path: Path) -> None:
    data = with_chunk(encoded(photo((12, 8))), much_text(b"zTXt", 2 << 20) + chunk(b"eXIf", TURNED))
    assert opened(data, path).shape == (12, 8, 3)


@pytest.mark.parametrize("at_end", [False, True])
def test_a_png_is_put_upright_though_the_checksum_of_its_exif_is_wrong(path: Path, at_end: bool) -> None:
    exif = chunk(b"eXIf", TURNED, checksum=1)
    assert opened(with_chunk(encoded(photo((12, 8))), exif, at_end=at_end), path).shape == (12, 8, 3)


def test_a_png_whose_pixels_have_a_wrong_checksum_is_refused(path: Path) -> None:
    data = bytearray(encoded(photo((12, 8))))
    data[data.index(b"IDAT") + 20] ^= 255
    refusal(bytes(data), path)


def test_a_png_without_its_last_chunk_is_read(path: Path) -> None:
    image = photo((12, 8))
    assert np.array_equal(opened(encoded(image)[:-12], path), np.asarray(image))


# ------------------------------------------------------------------------- JPEG without its end

FORMS = {
    "baseline": {},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", [None, 16])
@pytest.mark.parametrize("missing", [1, 2, 3, 10])
def test_a_jpeg_that_lacks_its_last_bytes_is_read(
    path: Path, form: str, side: int | None, missing: int
) -> None:
    data = encoded(photo((320, 256)), "JPEG", quality=90, **FORMS[form])
    whole, cut = opened(data, path, side), opened(data[:-missing], path, side)
    rows = len(whole) * 9 // 10
    assert cut.shape == whole.shape
    assert np.abs(cut[:rows].astype(int) - whole[:rows]).max() <= 8


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", [None, 16])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.8])
@pytest.mark.parametrize("tail", [b"", bytes(40_000)], ids=["cut", "zeros"])
def test_a_part_of_a_jpeg_is_no_image(
    path: Path, form: str, side: int | None, kept: float, tail: bytes
) -> None:
    """Its missing rows would be grey, or whatever the zeros of an unfinished download mean as codes."""
    data = encoded(photo((320, 256)), "JPEG", quality=90, **FORMS[form])
    refusal(data[: int(len(data) * kept)] + tail, path, side)


def test_zeros_behind_the_end_of_a_jpeg_are_no_damage(path: Path) -> None:
    data = encoded(photo(), "JPEG")
    assert np.array_equal(opened(data + bytes(4096), path), opened(data, path))


def test_a_progressive_jpeg_without_its_last_scan_is_no_image(path: Path) -> None:
    data = encoded(photo(), "JPEG", quality=90, progressive=True)
    refusal(data[: data.rindex(b"\xff\xda") + 2], path)


def test_pillows_switch_for_cut_files_stays_off(path: Path) -> None:
    opened(encoded(photo(), "JPEG")[:-2], path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    "image_format", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "AVIF", "TGA", "PPM"]
)
@pytest.mark.parametrize("side", [None, 1])
def test_a_part_of_any_other_format_is_no_image(path: Path, image_format: str, side: int | None) -> None:
    if image_format not in (Image.init(), Image.SAVE)[1]:
        pytest.skip(f"this Pillow writes no {image_format}")
    data = encoded(photo(), image_format)
    refusal(data[: int(len(data) * 0.6)], path, side)


# ------------------------------------------------------------------------- transparency


def one_of_a_palette(index: int) -> Image.Image:
    """Every pixel has the same of four dark colours."""
    image = Image.new("P", (4, 3), index)
    image.putpalette(bytes(range(12)))
    return image


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_is_white(path: Path, mode: str) -> None:
    data = encoded(Image.new(mode, (4, 3), 0))
    assert opened(data, path).reshape(-1, 3).tolist() == [WHITE] * 12
    assert opened(data, path, as_stored=True).max() == 0


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (Image.new("L", (4, 3), 7), {"transparency": 7}),
        (Image.new("1", (4, 3), 1), {"transparency": 1}),
        (Image.new("RGB", (4, 3), (1, 2, 3)), {"transparency": (1, 2, 3)}),
        (one_of_a_palette(3), {"transparency": 3}),
        (one_of_a_palette(1), {"transparency": bytes([255, 0])}),
        (Image.fromarray(np.full((3, 4), 4096, np.uint16)), {"transparency": 4096}),
    ],
    ids=["L", "1", "RGB", "P, one colour", "P, alphas", "16 bits"],
)
def test_a_transparent_colour_is_white(path: Path, image: Image.Image, options: dict[str, object]) -> None:
    assert opened(encoded(image, **options), path).reshape(-1, 3).tolist() == [WHITE] * 12


def grey_png(bits: int, rows: list[bytes], width: int, extra: bytes = b"", colour: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_a_transparent_grey_of_two_bits_is_white(path: Path) -> None:
    """Pillow spreads 0…3 over 0…255, but not the value that is transparent."""
    data = grey_png(2, [bytes([0b00011011])], 4, chunk(b"tRNS", struct.pack(">H", 1)))
    assert opened(data, path)[0, :, 0].tolist() == [0, 255, 170, 255]


def test_a_transparent_colour_of_sixteen_bits_is_white(path: Path) -> None:
    row = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x4321, 0x8765, 0xCBA9)
    data = grey_png(16, [row], 2, chunk(b"tRNS", row[:6]), colour=2)
    assert opened(data, path).tolist() == [[WHITE, [0x43, 0x87, 0xCB]]]


def test_transparency_of_other_formats_is_white_too(path: Path) -> None:
    clear, half = Image.new("RGBA", (4, 4), (9, 9, 9, 0)), Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert opened(encoded(clear, "WEBP", lossless=True, exact=True), path).min() == 255
    assert opened(encoded(clear, "TIFF"), path).min() == 255
    assert opened(encoded(clear, "GIF"), path).min() == 255
    assert opened(encoded(half), path)[0, 0].tolist() == [127, 127, 127]


def test_opaque_pixels_stay_as_they_are(path: Path) -> None:
    image = photo()
    rgba = image.copy()
    rgba.putalpha(255)
    assert np.array_equal(opened(encoded(rgba), path), np.asarray(image))
    palette = image.quantize(16)
    plain = np.asarray(palette.convert("RGB"))
    assert np.array_equal(opened(encoded(palette, transparency=200), path), plain)


# ------------------------------------------------------------------------- deep values


def tiff(values: np.ndarray) -> bytes:
    return encoded(Image.fromarray(values), "TIFF")


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        (np.array([[0, 32768, 65535]], np.uint16), [0, 128, 255]),
        (np.array([[0, 2048, 4095]], np.uint16), [0, 128, 255]),
        (np.array([[0, 128, 255]], np.uint16), [0, 128, 255]),
        (np.array([[0, 1, 0]], np.uint16), [0, 255, 0]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 128, 255]], np.float32), [0, 128, 255]),
        (np.array([[0, 2047.5, 4095]], np.float32), [0, 128, 255]),
        (np.array([[0, 5e5, 1e6]], np.float32), [0, 128, 255]),
        (np.array([[-1, 0, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, np.nan, 1]], np.float32), [0, 0, 255]),
        (np.array([[-np.inf, 0.5, np.inf]], np.float32), [0, 128, 255]),
        (np.array([[-3e38, 0, 3e38]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, np.nan, np.nan]], np.float32), [0, 0, 0]),
        (np.array([[0, 2**30, 2**31 - 1]], np.int32), [0, 128, 255]),
        (np.array([[-1024, 1024, 3071]], np.int32), [0, 102, 204]),
        (np.array([[-(2**31), 0, 2**31 - 1]], np.int32), [0, 128, 255]),
        (np.array([[0, 0, 0]], np.int32), [0, 0, 0]),
    ],
    ids=["16 bits", "12 bits", "8 bits in 16", "a mask", "0…1", "0…255", "0…4095", "beyond", "-1…1", "nan", "inf",
         "largest floats", "all nan", "31 bits", "below zero", "32 bits", "black"],
)  # fmt: skip
def test_deep_values_are_visible(path: Path, values: np.ndarray, grey: list[int]) -> None:
    assert opened(tiff(values), path)[0, :, 0].tolist() == pytest.approx(grey, abs=1)


def test_twelve_bits_of_colour_are_visible(path: Path) -> None:
    row = struct.pack(">6H", 0, 2048, 4095, 4095, 0, 1024)
    assert opened(grey_png(16, [row], 2, colour=2), path).tolist() == [[[0, 136, 255], [255, 0, 68]]]


def test_twelve_bits_of_colour_beside_alpha_are_visible(path: Path) -> None:
    row = struct.pack(">4H", 0, 2048, 4095, 65535)
    assert opened(grey_png(16, [row], 1, colour=6), path).tolist() == [[[0, 136, 255]]]


def test_sixteen_bits_of_colour_keep_their_upper_byte(path: Path) -> None:
    row = struct.pack(">3H", 0x1234, 0x5678, 0xFFFF)
    assert opened(grey_png(16, [row], 1, colour=2), path).tolist() == [[[0x12, 0x56, 0xFF]]]


# ------------------------------------------------------------------------- colours


@pytest.mark.parametrize(
    ("mode", "image_format", "colour"),
    [
        ("CMYK", "JPEG", (0, 255, 255, 0)),
        ("CMYK", "TIFF", (0, 255, 255, 0)),
        ("YCbCr", "TIFF", (76, 85, 255)),
        ("LAB", "TIFF", (137, 209, 195)),
        ("RGB", "PPM", (255, 0, 0)),
    ],
)
def test_red_is_red_in_any_colour_space(
    path: Path, mode: str, image_format: str, colour: tuple[int, ...]
) -> None:
    red, green, blue = opened(encoded(Image.new(mode, (16, 16), colour), image_format), path)[8, 8].tolist()
    assert red > 240
    assert max(green, blue) < 40


def test_a_cmyk_jpeg_without_adobes_mark_is_read_like_one_with_it(path: Path) -> None:
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    place = data.index(b"\xff\xee\0\x0eAdobe")
    assert np.array_equal(opened(data[:place] + data[place + 16 :], path), opened(data, path))


def test_one_bit_is_black_and_white(path: Path) -> None:
    image = Image.fromarray(np.array([[True, False]]))
    assert opened(encoded(image), path)[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("image_format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_images_is_read(path: Path, image_format: str) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encoded(first, image_format, save_all=True, append_images=[second], **options)
    assert opened(data, path)[0, 0].tolist() == [255, 0, 0]


# ------------------------------------------------------------------------- orientation


def exif_bytes(kind: int, value: bytes, count: int = 1) -> bytes:
    return b"Exif\0\0MM\0*\0\0\0\x08\0\1" + struct.pack(">HHI4sI", 0x0112, kind, count, value, 0)


@pytest.mark.parametrize(
    "exif",
    [
        exif_bytes(3, b"\0\0\0\0"),
        exif_bytes(3, b"\0\x09\0\0"),
        exif_bytes(3, b"\xff\xff\0\0"),
        exif_bytes(2, b"6\0\0\0", 2),
        exif_bytes(99, b"\0\6\0\0"),
        b"Exif\0\0MM\0*\0\0\0\x08\0\7",
        b"Exif\0\0no tiff at all",
        b"Exif\0\0",
    ],
    ids=["0", "9", "65535", "a text", "no type", "cut", "no tiff", "empty"],
)
def test_an_odd_orientation_leaves_an_image_as_it_is_stored(path: Path, exif: bytes) -> None:
    assert opened(encoded(photo((24, 16)), "JPEG", exif=exif), path).shape == (16, 24, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_put_upright_or_left_as_stored(path: Path, orientation: int) -> None:
    image = photo((24, 16))
    data = encoded(image, exif=exif_bytes(3, struct.pack(">HH", orientation, 0))[6:])
    assert opened(data, path).shape == ((24, 16, 3) if orientation > 4 else (16, 24, 3))
    assert np.array_equal(opened(data, path, as_stored=True), np.asarray(image))


@pytest.mark.parametrize("side", [None, 8])
def test_as_stored_is_what_the_original_of_llava_reads(side: int | None) -> None:
    """`Image.open(path).convert("RGB")`, of every recorded image: turned, transparent, grey, with a palette."""
    paths = sorted(parity.path("images", "llava").iterdir())
    assert {"exif6.jpg", "rgba.png"} <= {path.name for path in paths}
    for path in paths:
        with Image.open(path) as image:
            if side is not None:
                image.draft("RGB", (side, side))
            assert np.array_equal(
                np.asarray(open_image(path, side, as_stored=True)), np.asarray(image.convert("RGB"))
            )


# ------------------------------------------------------------------------- files that are none


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it is empty"),
        (bytes(4096), "nothing but zero bytes"),
        (b"<!DOCTYPE html>\n<title>404</title>", "it is an HTML page"),
        (b"\xef\xbb\xbf\n <HTML>", "it is an HTML page"),
        (b"<?xml version='1.0'?><!-- x --><html xmlns='x'>", "it is an HTML page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "Git LFS pointer: git lfs pull",
        ),
        (b"/annex/objects/SHA256E-s1--0", "git-annex pointer: git annex get"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIC image: .*pip install pillow-heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "it is a HEIC image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "it is a JPEG XL image"),
        (b"\xff\x0a\0\0", "it is a JPEG XL image"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", "it is a video"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is an SVG drawing"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "it is an XML text"),
        (b'{"error": 403}', "it is a JSON text"),
        (b"PK\3\4\0\0", "it is a zip archive"),
        (b"%PDF-1.7", "it is a PDF document"),
        (b"\0\5\26\7\0\2\0\0", "AppleDouble"),
        (b"not an image", "in no image format that is read: JPEG, PNG, "),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
            "it is a PostScript or EPS drawing: convert it",
        ),
        (b"\xc5\xd0\xd3\xc6" + bytes(28), "it is a PostScript or EPS drawing"),
        (b"qoif" + bytes(28), r"it is an image \(QOI\), a format that is not read"),
        (b"\xff\xd8\xff\xe0", "cut off|no image format"),
    ],
)
def test_a_file_that_is_no_image_is_named_as_what_it_is(path: Path, data: bytes, says: str) -> None:
    assert re.search(says, refusal(data, path).message)


@pytest.mark.parametrize("data", [
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n%%EndComments\n", b"\xc5\xd0\xd3\xc6" + bytes(28), b"P7 332\n",
    b"Pf\n1 1\n", b"#define x_width 1\n", b"GRIB" + bytes(9), b"qoif" + bytes(20), b"\x0a\5\1\x08" + bytes(200),
    b"BUFR" + bytes(99), b"\xff\xd8\xff\xe0\0\x10JFIF%!PS", b"\x89PNG\r\n\x1a\n%!PS", b"II*\0%!PS", b"GIF89a%!PS",
])  # fmt: skip
def test_no_decoder_beyond_the_closed_list_is_ever_asked(
    path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by what a file holds nor by what it is called: Pillow's own order would try them all."""
    Image.init()
    asked: list[str] = []
    for name in set(Image.OPEN) - set(PILLOW_FORMATS.values()):
        monkeypatch.setitem(
            Image.OPEN,
            name,
            (lambda *_, name=name: asked.append(name), lambda *_, name=name: asked.append(name)),
        )
    for suffix in (".jpg", ".eps", ".xbm", ".pcx"):
        refusal(data, path.with_suffix(suffix))
    assert asked == []


def test_an_avif_is_named_where_pillow_has_no_decoder_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.init()
    for each in list(Image.OPEN):
        if each == "AVIF":
            monkeypatch.delitem(Image.OPEN, each)
            monkeypatch.setattr(Image, "ID", [id for id in Image.ID if id != each])
    says = refusal(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", path).message
    assert re.search("it is an AVIF image: .*pip install -U pillow", says)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "관")
    (tmp_path / "폴더").mkdir()
    for place, says in (
        ("관", "it is a named pipe"),
        ("폴더", "it is a folder"),
        ("/dev/null", "it is a device"),
    ):
        with pytest.raises(DataError, match=says):
            open_image(tmp_path / place)


def test_a_file_that_may_not_be_read_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(encoded(photo()))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        open_image(path)


def test_a_plug_in_for_heic_is_used_where_it_is_installed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class HeifImage(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._mode, self._size = "RGB", (2, 2)

        def load(self) -> object:
            return None

        def convert(self, *_: object, **__: object) -> Image.Image:
            return Image.new("RGB", (2, 2), "red")

    def register() -> None:
        Image.register_open("HEIF", HeifImage, lambda start: start[4:12] == b"ftypheic")

    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    try:
        assert opened(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", path).tolist() == [[[255, 0, 0]] * 2] * 2
    finally:
        Image.ID.remove("HEIF")
        del Image.OPEN["HEIF"]


# ------------------------------------------------------------------------- handed on as they are


@pytest.mark.parametrize(
    ("make", "plain_format"),
    [
        (lambda: encoded(photo(), "JPEG"), "JPEG"),
        (lambda: encoded(photo()), "PNG"),
        (lambda: encoded(photo(), "JPEG")[:-2], None),
        (lambda: with_chunk(encoded(photo()), chunk(b"eXIf", b"\0\x08\0\2")), None),
        (lambda: with_chunk(encoded(photo()), much_text(b"zTXt", 2 << 20)), None),
        (lambda: encoded(photo(), exif=TURNED), None),
        (lambda: encoded(Image.new("LA", (4, 4))), None),
        (lambda: encoded(Image.new("L", (4, 4)), transparency=0), None),
        (lambda: grey_png(16, [struct.pack(">3H", 1, 2, 3)], 1, colour=2), None),
        (lambda: encoded(photo(), "WEBP"), None),
    ],
)
def test_only_what_every_reader_sees_alike_is_handed_on(
    path: Path, make: Callable[[], bytes], plain_format: str | None
) -> None:
    path.write_bytes(make())
    assert read_image(path).plain_format == plain_format


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_image_without_room_for_it_is_not_called_unreadable(tmp_path: Path, image_format: str) -> None:
    """Such an error would be one row that is left out, and a finished output with fewer answers."""
    large, empty = tmp_path / "large", tmp_path / "empty"
    large.write_bytes(encoded(Image.new("RGB", (3000, 3000)), image_format))
    empty.write_bytes(encoded(Image.new("RGB", (3000, 3000)), image_format)[:40])
    open_image(large)
    assert _errors_of(large, resource.RLIMIT_AS) == "MachineError: not enough memory"
    assert _errors_of(large, resource.RLIMIT_NOFILE) == "MachineError: more files are open"
    # Of a damaged image its own damage is said, whatever memory its header asks for.
    with pytest.raises(DataError):
        open_image(empty)


def _errors_of(image: Path, limit: int) -> str:
    """Kind and first words of the error at an image in a process that has reached a limit."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + (4 << 20) if limit == resource.RLIMIT_AS else writing + 1
        resource.setrlimit(limit, (size, size))
        taken = []
        try:
            while limit == resource.RLIMIT_AS:  # what earlier images have left on the heap
                taken.append(bytearray(8 << 20))
        except MemoryError:
            pass
        try:
            open_image(image)
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading, encoding="utf-8") as stream:
        text = stream.read()
    assert str(image) in text
    return text[: text.index(" than" if "open" in text.split(":")[1] else ":", 16)]
