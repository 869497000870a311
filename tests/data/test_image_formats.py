"""What image format a file holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.data.image_formats import IMAGE_FORMATS, find_image_format
from PIL import Image

_PILLOW = {"JPEG 2000": "JPEG2000", "HEIC": None}


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_a_format_is_known_by_its_bytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / "그림"
    if name == "HEIC":  # Pillow writes none
        path.write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(40))
    else:
        Image.new("RGB", (8, 8)).save(path, _PILLOW.get(name, name.upper()))
    assert find_image_format(path) == name


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"%!PS-Adobe-3.0 EPSF", b"<html>", b"version https://git-lfs.github.com/spec/v1\n", b"BM: a note",
     b"P1 is the first", b"P6\n", b"RIFF\0\0\0\0WAVEfmt ", b"\0\0\0\x18ftypisom\0\0\0\0isommp42", b"\0" * 64, b"\0\0\2\0"],
)  # fmt: skip
def test_what_holds_no_image_has_no_format(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(data)
    assert find_image_format(tmp_path / "x.jpg") is None
    assert find_image_format(tmp_path / "gone") is None
    assert find_image_format(tmp_path) is None


def test_a_tga_is_known_by_its_header_and_length_whatever_its_name(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tga")
    data = (tmp_path / "a.tga").read_bytes().removesuffix(b"\0\0\0\0\0\0\0\0TRUEVISION-XFILE.\0")
    for name, content, format in (
        ("b.jpg", data, "TGA"),
        ("c.tga", data[:-1], None),
        ("d.tga", bytes(99), None),
    ):
        (tmp_path / name).write_bytes(content)
        assert find_image_format(tmp_path / name) == format


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("compression", [None, "tga_rle"])
def test_every_tga_that_pillow_writes_is_known(tmp_path: Path, mode: str, compression: str | None) -> None:
    Image.new(mode, (300, 2)).save(tmp_path / "a", "TGA", compression=compression)
    assert find_image_format(tmp_path / "a") == "TGA"
