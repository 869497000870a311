"""The image that a data set names, as it is on this disk."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from kovqa_core.index import find_image as module
from kovqa_core.index.find_image import find_image, find_image_any_suffix

from tests.index.raw_data import write_images


@pytest.fixture
def images(tmp_path: Path) -> Path:
    module._cached_listing.cache_clear()
    (tmp_path / "밖.jpg").touch()
    nfd = unicodedata.normalize("NFD", "나무.jpg")
    return write_images(
        tmp_path, ["가.jpg", "동물/개.jpg", "사물/개.jpg", f"동물/{nfd}", "동물/plumless", "buckeroo"]
    )


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("가.jpg", "가.jpg"),
        ("사물/개.jpg", "사물/개.jpg"),
        ("개.jpg", "동물/개.jpg"),  # of two, the first
        ("폴더/가.jpg", "가.jpg"),  # labels name folders that were not kept
        ("동물/나무.jpg", unicodedata.normalize("NFD", "동물/나무.jpg")),
        ("나무.jpg", unicodedata.normalize("NFD", "동물/나무.jpg")),
        ("plumless", "동물/plumless"),  # the same CRC-32 as the next
        ("buckeroo", "buckeroo"),
        ("없음.jpg", None),
        ("", None),
        ("동물", None),
        ("../밖.jpg", None),
    ],
)
def test_a_image_is_found_as_this_disk_spells_it(images: Path, name: str, path: str | None) -> None:
    image = find_image(images, name)
    assert image is None or (images / image).is_file()
    assert (image and unicodedata.normalize("NFC", image)) == (path and unicodedata.normalize("NFC", path))


def test_an_absolute_name_is_not_followed(images: Path) -> None:
    assert find_image(images, str(images.parent / "밖.jpg")) is None


@pytest.mark.parametrize("name", ["가/나", "가/나.jpg", "./가//나.jpg", "가\\나.jpg"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_image_named_by_its_path_in_any_spelling(tmp_path: Path, name: str, form: str) -> None:
    (tmp_path / "가").mkdir()
    (tmp_path / "가" / unicodedata.normalize(form, "나.jpg")).touch()
    (tmp_path / "가.jpg").touch()
    image = find_image_any_suffix(tmp_path, name)
    assert image is not None
    assert (tmp_path / image).is_file()
    for other in ("", "나.jpg", "가", "가/다", "가\0"):
        assert find_image_any_suffix(tmp_path, other) in (None, "가.jpg")
    assert find_image_any_suffix(tmp_path, "나.jpg") is None, "nothing is searched"
