"""Names of images are judged as they are written."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from kovqa_core.data.example import Example, line_with_image, parse_example
from kovqa_core.data.image_names import is_inside, is_too_wide, leads_outside, path_below

INSIDE = [
    "a.jpg", "가/나.jpg", "...", "a..b.jpg", "..a.jpg", "a../b.jpg", "a/.../b.jpg", ".hidden.jpg",
    "~thumb.jpg", "a/~/b.jpg", "12:30.jpg", "a:b/c.jpg", "제목: 하나/a.jpg", "", " ", "．．/a.jpg", "a\n..b",
]  # fmt: skip
OUTSIDE = [
    "/a.jpg", "//host/a.jpg", "\\a.jpg", "\\\\host\\share\\a.jpg", "C:\\a.jpg", "C:/a.jpg", "c:/a.jpg", "..", "../a.jpg",
    "..\\a.jpg", "a/../../b.jpg", "a/..", "a\\..\\b.jpg", "a/..\\b.jpg", "./../a.jpg", "~/a.jpg", "~", "~root/a.jpg",
    "file:///a.jpg", "file:/a.jpg", "FILE:///a.jpg", "https://host/a.jpg", "smb://host/a.jpg", "a\n/../b.jpg",
]  # fmt: skip


@pytest.mark.parametrize("name", INSIDE)
def test_a_name_in_the_folder(name: str) -> None:
    assert not leads_outside(name)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_outside(name: str) -> None:
    assert leads_outside(name)
    assert not is_inside(Path("/data/images"), name)


def test_what_is_inside_by_its_name_stays_there_on_this_system() -> None:
    """Drawn names: whatever is not judged to lead outside is, by its letters, a path below the folder."""
    rng, pieces = (
        random.Random(0),
        ["..", ".", "a", "/", "\\", "~", "C:", "file:", "가", " ", "//", "..a", "\n"],
    )
    inside = 0
    for _ in range(20_000):
        name = "".join(rng.choices(pieces, k=rng.randint(1, 6)))
        if not leads_outside(name):
            inside += 1
            path = os.path.normpath(f"/data/images/{name}")
            assert path == "/data/images" or path.startswith("/data/images/"), name
    assert inside > 2000


def test_an_absolute_path_below_the_folder(tmp_path: Path) -> None:
    images, link = tmp_path / "images", tmp_path / "link"
    images.mkdir()
    link.symlink_to(images)
    assert path_below(images, f"{images}/가/a.jpg") == "가/a.jpg"
    assert path_below(link, f"{link}/a.jpg") == path_below(link, f"{images}/a.jpg") == "a.jpg"
    assert path_below(Path("/"), "/a.jpg") == "a.jpg"
    for name in (
        f"{images}2/a.jpg",
        f"{images}/../a.jpg",
        f"{images}",
        f"{images}/",
        f"{link}/a.jpg",
        "a.jpg",
    ):
        assert path_below(images, name) is None


@pytest.mark.parametrize(
    ("folder", "is_wide"), [("/", True), ("/home", True), ("/home/../", True), ("/data", False)]
)
def test_folders_that_nobody_means(folder: str, is_wide: bool) -> None:
    assert is_too_wide(Path(folder)) is is_wide


@pytest.mark.parametrize(
    "image", ["a.jpg", '가 "나".jpg', os.fsdecode(b"\xb0\xa1.jpg"), "a\\b\n.jpg", "/x/a.jpg"]
)
def test_another_path_in_a_line(image: str) -> None:
    """Byte by byte what would be written anew, also where an id looks like the key."""
    for id in ("1", '", "image": "x', "\\"):
        example = Example(id, image, '"image": "?"', {"예": 1.0}, columns={"image": "/x/a.jpg"})
        changed = line_with_image(f"{example.line()}\n".encode(), lambda path: path + "나")
        assert (
            changed
            == f"{Example(id, image + '나', example.question, {'예': 1.0}, columns=example.columns).line()}\n".encode()
        )
        assert parse_example(changed, "x").image == image + "나"
