"""The image that a row names, as it is on this disk."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from kovqa_core.index.find_image import clear_listings, find_image, find_table_image

from tests.index.raw_data import touch, write_images


@pytest.fixture
def images(tmp_path: Path) -> Path:
    clear_listings()
    (tmp_path / "밖.jpg").touch()
    return write_images(
        tmp_path,
        ["가.jpg", "동물/개.jpg", "사물/개.jpg", f"동물/{nfd('나무.jpg')}", "동물/plumless", "buckeroo", "동물/소.JPG",
         "동물/.숨은.jpg", "사물/두.점.png", "사물/1.jpg", "사물/1.png"],
    )  # fmt: skip


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("가.jpg", "가.jpg"),
        ("사물/개.jpg", "사물/개.jpg"),
        ("폴더/가.jpg", "가.jpg"),  # labels name folders that were not kept
        ("폴더/나무.jpg", None),  # but they do not lie in another one
        ("C:\\자료\\사물\\개.jpg", "사물/개.jpg"),
        ("/home/a/사물/개.jpg", "사물/개.jpg"),
        ("사물\\개.jpg", "사물/개.jpg"),
        (nfd("사물/개.jpg"), "사물/개.jpg"),
        ("동물/나무.jpg", "동물/나무.jpg"),
        ("나무.jpg", "동물/나무.jpg"),
        ("나무", "동물/나무.jpg"),
        ("동물/나무", "동물/나무.jpg"),
        ("소.jpg", "동물/소.JPG"),
        ("소", "동물/소.JPG"),
        ("두.점", "사물/두.점.png"),
        ("두", None),
        ("plumless", "동물/plumless"),  # the same CRC-32 as the next
        ("buckeroo", "buckeroo"),
        ("동물/.숨은.jpg", "동물/.숨은.jpg"),
        ("숨은.jpg", None),
        (".숨은.jpg", None),  # a system's, as long as nobody says where it is
        ("없음.jpg", None),
        ("", None),
        (" ", None),
        (".", None),
        ("\0", None),
        ("동물", None),
        ("../밖.jpg", None),
        ("동물/../../밖.jpg", None),
        ("..\\밖.jpg", None),
    ],
)
def test_an_image_is_found_as_this_disk_spells_it(images: Path, name: str, path: str | None) -> None:
    image = find_image(images, name).path
    assert image is None or (images / image).is_file()
    assert (image and unicodedata.normalize("NFC", image)) == path


def test_a_name_that_leads_outside_is_followed_only_if_the_user_allows_it(images: Path) -> None:
    outside = str(images.parent / "밖.jpg")
    for name in (outside, "../밖.jpg", "../밖", "동물/../../밖.jpg", "..\\밖.jpg"):
        found = find_image(images, name)
        assert (found.path, found.is_outside, found.reason) == (
            None,
            True,
            "picture outside the picture folder",
        )
        assert find_image(images, name, outside="all").path == outside
    assert find_image(images, outside, outside="absolute").path == outside
    assert find_image(images, "../밖", outside="absolute").is_outside
    assert find_image(images, f"{images}/../밖.jpg", outside="absolute").is_outside
    assert not find_image(images, "../없음.jpg").is_outside  # a path of another machine, perhaps


def test_an_absolute_name_below_the_image_folder_is_a_name_in_it(images: Path, tmp_path: Path) -> None:
    link = tmp_path / "링크"
    link.symlink_to(images)
    for folder in (images, link):
        for name in (images / "사물/개.jpg", link / "사물/개.jpg"):
            if folder == link or name.is_relative_to(images):
                assert find_image(folder, str(name)).path == "사물/개.jpg"
    assert find_image(images, str(link / "사물/개.jpg")).is_outside  # by its letters
    assert (
        find_image(images, f"{images}2/사물/개.jpg").path == "사물/개.jpg"
    )  # nothing there: by its bare name


def test_a_home_a_drive_and_an_address_are_never_opened(
    images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("~/밖.jpg", "~root/밖.jpg", f"file://{tmp_path}/밖.jpg", "C:/밖.jpg", "\\\\host\\밖.jpg"):
        for outside in ("none", "absolute", "all"):
            assert find_image(images, name, outside=outside).path is None


@pytest.mark.parametrize(
    ("name", "folders", "path"),
    [
        ("개.jpg", ("사물",), "사물/개.jpg"),
        ("개.jpg", (nfd("사물"),), "사물/개.jpg"),
        ("개", ("", "동물"), "동물/개.jpg"),
        ("개.jpg", ("[라벨]동물",), "동물/개.jpg"),
        ("사물/개.jpg", ("동물",), "사물/개.jpg"),  # the path that is given comes first
        ("개.jpg", (), None),
        ("개.jpg", ("음식",), None),
        ("사물/1", (), None),  # .jpg or .png?
        ("1", ("사물",), None),
    ],
)
def test_one_name_in_two_folders_belongs_to_the_rows_own_folder_or_to_nobody(
    images: Path, name: str, folders: tuple[str, ...], path: str | None
) -> None:
    found = find_image(images, name, folders)
    assert (found.path, found.is_ambiguous) == (path, path is None)
    if path is None:  # both are named
        assert {each.rsplit("/")[-1] for each in found.others} >= (
            {"개.jpg"} if "개" in name else {"1.jpg", "1.png"}
        )
        assert len(found.others) == 2 and all(each in found.problem for each in found.others)
        assert found.reason == "several pictures of that name"


def test_an_image_in_the_folder_of_another_category_is_not_the_rows(images: Path) -> None:
    found = find_image(images, "나무.jpg", ("사물", "train"), ("동물", "val", "test"))
    assert (found.path, found.reason) == (None, "picture missing")
    assert "나무.jpg (in another folder: 동물/나무.jpg)" in unicodedata.normalize("NFC", found.problem)
    touch(images, ["깊은/1.Training/[원천]사물/나무.jpg", "깊은/2.Validation/[원천]사물/나무.jpg"])
    clear_listings()
    for split, folder in (("train", "1.Training"), ("val", "2.Validation")):
        found = find_image(images, "나무.jpg", ("사물", split), ("동물",))
        assert found.path == f"깊은/{folder}/[원천]사물/나무.jpg"


def test_links_to_one_image_are_one_image(images: Path, tmp_path: Path) -> None:
    touch(tmp_path / "다른 디스크", ["빵.jpg"])
    (images / "음식").symlink_to(tmp_path / "다른 디스크")
    (images / "음식 2").symlink_to(tmp_path / "다른 디스크")
    (images / "돌아옴").symlink_to(images)
    (images / "사물" / "빵.jpg").symlink_to(tmp_path / "다른 디스크" / "빵.jpg")
    (images / "사물" / "죽.jpg").symlink_to(tmp_path / "nowhere")
    assert find_image(images, "빵.jpg").path in ("음식/빵.jpg", "사물/빵.jpg")
    assert find_image(images, "음식 2/빵.jpg").path == "음식 2/빵.jpg"
    assert find_image(images, "죽.jpg").path is None


def test_a_file_name_in_cp949_is_found_by_its_hangul(images: Path) -> None:
    raw = os.fsencode(images) + "/동물/".encode() + "고래.png".encode("cp949")
    Path(os.fsdecode(raw)).touch()
    for name in ("고래.png", "고래", "동물/고래.png"):
        found = find_image(images, name).path
        assert found is not None and os.fsencode(images / found) == raw


@pytest.mark.parametrize("name", ["가/나", "가/나.jpg", "./가//나.jpg", "가\\나.jpg"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_image_named_by_its_path_in_any_spelling(tmp_path: Path, name: str, form: str) -> None:
    clear_listings()
    (tmp_path / "가").mkdir()
    (tmp_path / "가" / unicodedata.normalize(form, "나.jpg")).touch()
    (tmp_path / "가.jpg").touch()
    image = find_image(tmp_path, name).path
    assert image is not None
    assert (tmp_path / image).is_file()
    for other in ("", "가", "가/다", "가\0"):
        assert find_image(tmp_path, other).path in (None, "가.jpg")


def test_the_images_of_a_test_table_lie_in_a_test_folder(tmp_path: Path) -> None:
    """Dacon's own test.csv, as it comes."""
    clear_listings()
    touch(
        tmp_path, ["image/train/1.jpg", "image/test/1.jpg", "image/train/2.jpg", "동물/3.jpg", "음식/3.jpg"]
    )
    table = tmp_path / "test.csv"
    assert find_table_image(table, tmp_path, "1").path == "image/test/1.jpg"
    assert find_table_image(tmp_path / "표.csv", tmp_path, "1", split="train").path == "image/train/1.jpg"
    assert find_table_image(table, tmp_path, "2").problem == "2 (in another folder: image/train/2.jpg)"
    assert find_table_image(tmp_path / "표.csv", tmp_path, "2", split="val").path == "image/train/2.jpg"
    assert find_table_image(table, tmp_path, "3.jpg", question_type="음식").path == "음식/3.jpg"
    assert find_table_image(table, tmp_path, "3.jpg").is_ambiguous


def test_a_name_with_its_suffix_costs_few_looks(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    is_file = os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: looks.append(path) or is_file(path))
    assert find_image(images, "나무.jpg").path == f"동물/{nfd('나무.jpg')}"
    assert len(looks) <= 3, "one for each spelling of the name, for every image of millions"


def test_blanks_around_a_cell_are_not_the_images(images: Path) -> None:
    touch(images, [" 빈칸.jpg"])
    clear_listings()
    table = images / "t.csv"
    for name in ("가.jpg\n", " 가.jpg ", "\t가", "가.jpg\u00a0"):
        assert find_table_image(table, images, name).path == "가.jpg"
    assert find_table_image(table, images, " 빈칸.jpg").path == " 빈칸.jpg"
    assert find_table_image(table, images, " 개.jpg ").is_ambiguous
    assert find_table_image(table, images, " 없음.jpg ").path is None
