"""Memory of one image is counted before it is decoded; what is counted is what it takes."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kovqa_core.data.image_io import open_image
from kovqa_core.data.image_memory import DEFAULT_MEMORY, MEMORY_VARIABLE, image_memory_limit
from kovqa_core.errors import DataError, SettingsError
from PIL import Image, ImageFile, ImageOps

MEGA = 1 << 20
SIDE = 1500  # pixels a side of what is measured


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int, bits: int = 8, colour: int = 2, rows: bytes = bytes(64)) -> bytes:
    """A PNG that says how large it is, and holds no more than some rows of it."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">2I5B", width, height, bits, colour, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows, 1))
        + chunk(b"IEND", b"")
    )


def icon_of(content: bytes) -> bytes:
    """An ICO that calls an image one of 16 x 16."""
    return struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(content), 22) + content


def bitmap_header(width: int, height: int) -> bytes:
    return struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def tiff(width: int, height: int, tile: int = 0) -> bytes:
    """A TIFF whose header declares one strip, or tiles of a side."""
    tags = {256: width, 257: height, 258: 8, 259: 5, 262: 1, 277: 1, 273: 200, 278: height, 279: 9}
    if tile:
        tags |= {322: tile, 323: tile, 324: 200, 325: 9}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)).ljust(256, b"\0")


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def with_size(data: bytes, place: int, form: str, *sides: int) -> bytes:
    return data[:place] + struct.pack(form, *sides) + data[place + struct.calcsize(form) :]


def jpeg_of_size(width: int, height: int, **options: object) -> bytes:
    data = saved(Image.new("RGB", (16, 16)), "JPEG", **options)
    frame = re.search(rb"\xff[\xc0\xc2]\0\x11\x08", data)
    assert frame
    return with_size(data, frame.end(), ">2H", height, width)


def jp2_of_size(width: int, height: int) -> bytes:
    data = saved(Image.new("RGB", (16, 16)), "JPEG2000")
    return with_size(data, data.index(b"ihdr") + 4, ">2I", height, width)


HUGE: dict[str, Callable[[], bytes]] = {
    "deep grey png": lambda: png_header(12_000, 10_000, 16, 0),
    "deep colour png": lambda: png_header(13_000, 13_000, 16, 2),
    "more pixels than Pillow opens": lambda: png_header(100_000, 100_000),
    "png in an icon": lambda: icon_of(png_header(12_000, 12_000)),
    "bitmap in an icon": lambda: icon_of(bitmap_header(12_000, 24_000)),
    "png in an icon behind a second header": lambda: icon_of(
        png_header(16, 16)[:33] + png_header(12_000, 12_000)[8:]
    ),
    "bmp": lambda: b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + bitmap_header(13_000, 13_000),
    "jpeg": lambda: jpeg_of_size(12_000, 12_000),
    "progressive jpeg": lambda: jpeg_of_size(11_000, 11_000, progressive=True),
    "jpeg 2000": lambda: jp2_of_size(9_000, 9_000),
    "gif": lambda: with_size(saved(Image.new("L", (4, 4)), "GIF"), 6, "<2H", 13_000, 13_000),
    "tiff": lambda: tiff(12_000, 12_000),
    "small tiff of large tiles": lambda: tiff(64, 64, 40_000),
    "ppm": lambda: b"P6\n12000 12000\n65535\n" + bytes(99),
    "plain ppm": lambda: b"P3\n12000 12000\n255\n1 2 3",
    "tga": lambda: struct.pack("<3B5x4x2H2B", 0, 0, 10, 12_000, 12_000, 32, 8) + bytes(6_000_000),
}  # fmt: skip


@pytest.mark.parametrize("name", HUGE)
def test_an_image_that_takes_more_than_is_allowed_is_refused_before_it_is_decoded(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "사진.jpg"
    path.write_bytes(HUGE[name]())
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(DataError) as caught:
        open_image(path)
    says = caught.value.message
    assert "\n" not in says
    assert re.search(rf"image {path} is too large: .*[\d,]+ pixels take [\d,]+ bytes of memory", says)
    assert MEMORY_VARIABLE in says
    allowed = re.fullmatch(rf"reduce it, or allow more: {MEMORY_VARIABLE}=(\d+)G", caught.value.hint)
    assert allowed
    if (
        name != "more pixels than Pillow opens"
    ):  # what the hint says is enough: now it is its content that is wrong
        monkeypatch.setenv(MEMORY_VARIABLE, f"{allowed[1]}G")
        with pytest.raises((pytest.fail.Exception, DataError), match=r"it was decoded|cannot be read"):
            open_image(path)


@pytest.mark.parametrize("image_format", ["WEBP", "AVIF"])
def test_formats_read_as_a_whole_are_counted_too(
    tmp_path: Path, image_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if image_format not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {image_format}")
    path = tmp_path / "a"
    path.write_bytes(saved(Image.new("RGB", (600, 500)), image_format))
    monkeypatch.setenv(MEMORY_VARIABLE, "4M")
    with pytest.raises(
        DataError, match="600 x 500 = 300,000 pixels take 4,800,000 bytes of memory, more than the 4,194,304"
    ):
        open_image(path)
    monkeypatch.setenv(MEMORY_VARIABLE, "5M")
    assert open_image(path).size == (600, 500)


def test_a_large_jpeg_of_which_a_small_image_is_asked_for_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At an eighth of its size it takes a 64th of the memory; a progressive one is kept whole by libjpeg."""
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(Image.new("RGB", (3000, 2000), "red"), "JPEG"))
    monkeypatch.setenv(MEMORY_VARIABLE, "8M")
    assert open_image(path, 250).size == (375, 250)
    with pytest.raises(DataError, match="is too large"):
        open_image(path)
    path.write_bytes(saved(Image.new("RGB", (3000, 2000), "red"), "JPEG", progressive=True))
    with pytest.raises(DataError, match="3,000 x 2,000 = 6,000,000 pixels take"):
        open_image(path, 250)


def test_a_file_that_would_be_read_as_a_whole_is_measured_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.webp"
    path.write_bytes(saved(Image.new("RGB", (16, 16)), "WEBP"))
    os.truncate(path, 600 * MEGA)
    with pytest.raises(
        DataError, match=r"629,145,600 bytes, read as a whole, take more than the 1,073,741,824"
    ):
        open_image(path)


def test_a_hole_behind_a_jpeg_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(Image.new("RGB", (16, 16), "red"), "JPEG")[:-40])
    os.truncate(path, 1 << 40)
    with pytest.raises(DataError, match="cut off"):
        open_image(path)


@pytest.mark.parametrize(
    ("text", "size"),
    [("", DEFAULT_MEMORY), ("2G", 2 << 30), (" 800 MiB ", 800 * MEGA), ("12345", 12345), ("1kb", 1024)],
)
def test_the_limit_is_a_size(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, text)
    assert image_memory_limit() == size


@pytest.mark.parametrize("text", ["much", "0", "-1G", "1.5G", "9" * 5000, "٣G"])
def test_what_is_no_size_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, text)
    (tmp_path / "a").write_bytes(saved(Image.new("RGB", (1, 1)), "PNG"))
    with pytest.raises(SettingsError, match=f"{MEMORY_VARIABLE}="):
        open_image(tmp_path / "a")


# Growth of the process while each image is opened: the peak is set back before.
MEASURE = """
import json, re, sys
from pathlib import Path
from PIL import Image, ImageCms
from kovqa_core.data import image_memory
from kovqa_core.data.image_io import open_image
counted = []
require = image_memory._require
image_memory._require = lambda path, size, needed: (counted.append(needed), require(path, size, needed))
def kilobytes(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
Image.init()
results = {}
paths = sorted(Path(sys.argv[1]).iterdir())
open_image(paths[0])  # loads libraries
for path in paths:
    counted.clear()
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    open_image(path)
    results[path.name] = [max(counted), (kilobytes("VmHWM") - before) * 1024]
print(json.dumps(results))
"""


def measured_images() -> dict[str, bytes]:
    rows = np.linspace(0, 255, SIDE)
    grey = np.broadcast_to(rows[:, None], (SIDE, SIDE))
    colours = Image.fromarray(np.stack([grey, grey.T, grey / 2 + grey.T / 2], -1).astype(np.uint8))
    deep = np.ascontiguousarray((grey * 257).astype(np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    deep_colour = b"\0" + bytes(6 * SIDE)
    return {
        "a.jpg": saved(colours, "JPEG"),
        "progressive.jpg": saved(colours.convert("CMYK"), "JPEG", progressive=True, subsampling=0),
        "turned.jpg": saved(colours, "JPEG", exif=turned),
        "alpha.png": saved(colours.convert("RGBA"), "PNG", compress_level=1),
        "deep.png": saved(Image.fromarray(deep), "PNG", compress_level=1),
        "twelve.png": png_header(SIDE, SIDE, 16, rows=deep_colour * SIDE),
        "float.tif": saved(Image.fromarray(grey.astype(np.float32)), "TIFF"),
        "strip.tif": saved(colours, "TIFF", compression="tiff_lzw", strip_size=1 << 30),
        "a.webp": saved(colours.convert("RGBA"), "WEBP", lossless=True, method=0),
        "a.jp2": saved(colours, "JPEG2000"),
        "palette.gif": saved(colours.quantize(16), "GIF", transparency=0),
        "icon": icon_of(saved(colours.convert("RGBA"), "PNG", compress_level=1)),
        "inverted.bmp": saved(ImageOps.flip(colours), "BMP"),
    }  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux sets the peak back")
def test_an_image_takes_no_more_memory_than_was_counted(tmp_path: Path) -> None:
    for name, data in measured_images().items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 17)},  # what is freed goes back at once
    )
    results = json.loads(done.stdout)
    assert len(results) == len(list(tmp_path.iterdir()))
    slack = 6 * MEGA  # strips, and what an allocator keeps
    assert {name: pair for name, pair in results.items() if pair[1] > pair[0] + slack} == {}
    assert {name: pair for name, pair in results.items() if pair[1] < pair[0] / 4} == {}  # nor far less
