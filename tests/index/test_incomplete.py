"""Raw data that were unpacked in part: what is missing is named, and is an error above a tenth."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.errors import DataError
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import open_index
from kovqa_core.index.report import IndexReport
from kovqa_core.index.sources.aihub import label_folders
from typer.testing import CliRunner

from kovqa_cli.main import app
from tests.index.raw_data import Row, image_name, left_out_counts, touch, write, write_labels

LEVELS = "상중하"


def aihub_tree(root: Path, categories: int = 4, rows: int = 1) -> dict[str, Path]:
    """Level folders by category, level and split ("교통0/상/train"), each with so many rows."""
    folders, all_rows = {}, []
    for category in range(categories):
        for level in LEVELS:
            for split in ("train", "val"):
                name = f"교통{category}/{level}/{split}"
                some = [Row(f"{name}-{n}", f"{len(folders)}-{n}", "예") for n in range(rows)]
                folders[name] = write_labels(root, some, split, f"교통{category}", level)
                all_rows += some
    write_images_of(root, all_rows)
    return folders


def indexed(root: Path, *, allow_left_out: bool = True) -> IndexReport:
    return build_index("aihub", root, None, root.parent / "index", allow_left_out=allow_left_out)


def write_images_of(root: Path, rows: list[Row]) -> None:
    touch(root / "images", map(image_name, rows))


def empty_folder(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    "gone", [["annotation.json"], ["annotation.json", "images.json"], ["annotation.json", "question.json"]]
)
def test_a_level_folder_without_annotations_is_named_and_its_rows_are_left_out(
    tmp_path: Path, gone: list[str]
) -> None:
    folder = aihub_tree(tmp_path / "raw")["교통1/중/train"]
    for name in gone:
        (folder / name).unlink()
    report = indexed(tmp_path / "raw", allow_left_out=False)  # one of 24: a warning
    assert list(report.incomplete) == [f"{folder}: no annotation.json"]
    assert left_out_counts(report) == {"no annotation": 1}
    stored = json.loads((tmp_path / "index" / "index.json").read_text("utf-8"))
    assert stored["incomplete"] == [f"{folder}: no annotation.json"]
    assert open_index(tmp_path / "index").report.incomplete == report.incomplete


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_empty_level_category_or_split_is_named(tmp_path: Path, form: str) -> None:
    tree = aihub_tree(tmp_path / "raw")
    empty_folder(tree["교통2/하/val"])
    category = tree["교통0/상/val"].parent
    for level in list(category.iterdir()):
        empty_folder(level)
        level.rmdir()
    others = tmp_path / "raw" / "라벨" / unicodedata.normalize(form, "2.검증")
    others.mkdir(parents=True)
    (tmp_path / "raw" / "images" / "교통0").mkdir()  # of images, and no labels are missing there
    (tmp_path / "raw" / "새 폴더").mkdir()
    report = indexed(tmp_path / "raw")
    assert sorted(report.incomplete) == sorted(
        f"{folder}: empty" for folder in (tree["교통2/하/val"], category, others)
    )


def test_more_than_a_tenth_is_an_error_which_a_flag_allows(tmp_path: Path) -> None:
    tree = aihub_tree(tmp_path / "raw", categories=1)
    empty_folder(tree["교통0/상/train"])
    with pytest.raises(DataError) as caught:
        indexed(tmp_path / "raw", allow_left_out=False)
    assert caught.value.message == (
        f"{tmp_path / 'raw'} is not complete: 1 of its parts are not whole (first: {tree['교통0/상/train']}: empty)"
    )
    assert "--allow-left-out" in caught.value.hint
    assert not (tmp_path / "index").exists()
    assert sum(indexed(tmp_path / "raw").counts.rows.values()) == 5


def test_the_originals_files_are_not_made_of_half_a_tree(tmp_path: Path) -> None:
    tree = aihub_tree(tmp_path / "raw", categories=1)
    assert len(label_folders(tmp_path / "raw")) == 6
    (tree["교통0/상/train"] / "annotation.json").unlink()
    with pytest.raises(DataError, match=r"상_train_교통0: no annotation\.json"):
        label_folders(tmp_path / "raw")


def test_a_tree_of_one_published_split_is_said_and_a_whole_one_says_nothing(tmp_path: Path) -> None:
    aihub_tree(tmp_path / "raw")
    (tmp_path / "raw").rename(tmp_path / "교통0")  # what the user calls the root says nothing
    assert not indexed(tmp_path / "교통0").incomplete
    assert not indexed(tmp_path / "교통0").notes
    rows = [Row(1, 1, "예")]
    write_labels(tmp_path / "half", rows)
    write_images_of(tmp_path / "half", rows)
    assert re.search(
        "no folder below .* says that its labels are validation data", str(indexed(tmp_path / "half").notes)
    )


def test_a_check_says_it_also_where_little_is_wanted(tmp_path: Path) -> None:
    tree = aihub_tree(tmp_path / "raw")
    (tree["교통1/중/train"] / "annotation.json").unlink()
    done = CliRunner().invoke(app, ["index", "aihub", "--root", str(tmp_path / "raw"), "--check", "-q"])
    assert done.exit_code == 0, done.output
    assert (
        f"warning: not whole, its rows are missing: {tree['교통1/중/train']}: no annotation.json"
        in done.stderr
    )
    as_json = CliRunner().invoke(
        app, ["index", "aihub", "--root", str(tmp_path / "raw"), "--check", "--json"]
    )
    assert json.loads(as_json.stdout)["incomplete"] == [f"{tree['교통1/중/train']}: no annotation.json"]


# ------------------------------------------------------------------------- files without rows

QUESTION = {"question_id": 1, "image_id": 1, "question": "무엇?"}


def nia(root: Path) -> Path:
    (root / "image").mkdir(parents=True)
    (root / "image" / "a.jpg").touch()
    record = {"question_id": "1", "question_ko": "무엇?", "answer_ko": "꽃", "ans_source": "triple"}
    for name in ("train", "valid", "test"):
        rows = [] if name == "valid" else [{"IMAGE_NAME": "a.jpg", "questions": [record]}]
        write(root / f"{name}.json", {"annotations": rows})
    return root / "valid.json"


def vqav2(root: Path) -> Path:
    answer = {
        "question_id": 1,
        "image_id": 1,
        "multiple_choice_answer": "예",
        "answers": [{"answer": "예"}] * 10,
    }
    for part in ("train2014", "val2014"):
        (root / part).mkdir(parents=True)
        (root / part / f"COCO_{part}_000000000001.jpg").touch()
        rows = [] if part == "val2014" else [QUESTION]
        write(root / f"v2_OpenEnded_mscoco_{part}_questions.json", {"questions": rows})
        write(root / f"v2_mscoco_{part}_annotations.json", {"annotations": [answer] if rows else []})
    return root / "v2_OpenEnded_mscoco_val2014_questions.json"


def aihub_level(root: Path) -> Path:
    folder = aihub_tree(root, categories=1)["교통0/상/val"]
    for name, key in (("annotation", "annotations"), ("question", "questions"), ("images", "images")):
        write(folder / f"{name}.json", {key: []})
    return folder


@pytest.mark.parametrize(("source", "make"), [("nia", nia), ("vqav2", vqav2), ("aihub", aihub_level)])
def test_a_file_without_a_row_is_named(tmp_path: Path, source: str, make: Callable[[Path], Path]) -> None:
    place = make(tmp_path / "raw")
    report = build_index(source, tmp_path / "raw", None, tmp_path / "index", min_count=1)
    assert list(report.incomplete) == [f"{place}: no rows"]
    with pytest.raises(DataError, match=r"is not complete: 1 of its parts are not whole .*: no rows"):
        build_index(source, tmp_path / "raw", None, tmp_path / "index", min_count=1, allow_left_out=False)


def test_a_label_file_of_set_101_without_a_question_is_counted(tmp_path: Path) -> None:
    for name, rows in (("a", [{**QUESTION, "answer": "예"}]), ("b", [])):
        images = [{"image_id": 1, "image": "a.jpg"}]
        write(tmp_path / "raw" / "Training" / f"{name}.json", {"images": images, "question": rows})
    (tmp_path / "raw" / "Training" / "a.jpg").touch()
    report = build_index("aihub101", tmp_path / "raw", None, tmp_path / "index", min_count=1)
    assert left_out_counts(report) == {"file without rows": 1}
    assert "validation data" in str(report.notes)


def test_an_archive_beside_an_image_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    nia(raw)
    (raw / "image" / "a.jpg").unlink()
    (raw / "image").rmdir()
    for name in ("a.zip", "image.zip"):
        (raw / name).write_bytes(b"PK\3\4")
    with pytest.raises(DataError, match=r"no folder .*/image") as caught:
        build_index("nia", raw, None, tmp_path / "index")
    assert caught.value.hint == f"unpack {raw}/image.zip: kovqa download --from {raw}/image.zip"
    vqav2(tmp_path / "vqa")
    (tmp_path / "vqa" / "train2014" / "COCO_train2014_000000000001.jpg").unlink()
    (tmp_path / "vqa" / "train2014").rmdir()
    (tmp_path / "vqa" / "train2014.zip").write_bytes(b"PK\3\4")
    with pytest.raises(DataError, match=r"cannot read .*train2014") as caught:
        build_index("vqav2", tmp_path / "vqa", None, tmp_path / "index")
    assert "train2014.zip: kovqa download --from" in caught.value.hint
