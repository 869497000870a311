"""AI-Hub's label tree -> an index, whatever state the files are in."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError
from kovqa_core.index.build import build_upstream_files
from kovqa_core.index.left_out import LeftOutRows
from kovqa_core.index.reader import open_index
from kovqa_core.index.report import DatasetOrigin, IndexReport
from kovqa_core.index.shards import DatasetShard, SourceOptions
from kovqa_core.index.sources import aihub
from kovqa_core.index.writer import write_index

from tests.index.raw_data import Row, image_name, touch, write_images, write_labels, write_table

ROWS = [Row("q1", "p1", "예"), Row("q2", "p1", "빨간색"), Row("q3", "p2", "예")]


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def read(root: Path) -> tuple[list[tuple[str, Example]], LeftOutRows]:
    """All rows, and what was left out."""
    left_out = LeftOutRows()
    return [row for shard in shards(root) for row in shard.read(left_out)], left_out


def shards(root: Path) -> list[DatasetShard]:
    return aihub.dataset_shards(root, aihub.find_image_folder(root), SourceOptions())


def write_images_of(root: Path, rows: list[Row]) -> Path:
    return write_images(root, {image_name(row) for row in rows})


# --------------------------------------------------------------------------------- good data


def test_rows_become_examples(tmp_path: Path) -> None:
    write_labels(tmp_path, [Row("q1", "p1", " 예 ", "신호등이 있나요?")])
    write_images(tmp_path, ["p1.jpg"])
    rows, left_out = read(tmp_path)
    assert rows == [("train", Example("q1", "p1.jpg", "신호등이 있나요?", {"예": 1.0}, "교통"))]
    assert not left_out.counts


def test_numbers_as_ids_and_answers(tmp_path: Path) -> None:
    write_labels(tmp_path, [Row(1, 7, 0)])
    write_images(tmp_path, ["7.jpg"])
    ((_, example),) = read(tmp_path)[0]
    assert (example.id, example.image, example.answers) == ("1", "7.jpg", {"0": 1.0})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
def test_label_files_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    write_labels(tmp_path, ROWS, encoding=encoding)
    write_images_of(tmp_path, ROWS)
    rows, _ = read(tmp_path)
    assert [(e.id, dict(e.answers)) for _, e in rows] == [
        ("q1", {"예": 1.0}), ("q2", {"빨간색": 1.0}), ("q3", {"예": 1.0}),
    ]  # fmt: skip
    assert rows[0][1].question == "무엇인가요?"


def test_decomposed_names_on_disk_are_found_and_kept(tmp_path: Path) -> None:
    """macOS archives: the index names the file as this disk does, so that it can be opened."""
    name = "교통_상_1.jpg"
    write_labels(tmp_path, [Row("q1", "p1", "예", file=name)])
    images = write_images(tmp_path, [nfd(name)])
    ((_, example),) = read(tmp_path)[0]
    assert (images / example.image).is_file()
    assert nfd(example.image) == nfd(name)


def test_decomposed_names_in_labels_are_found(tmp_path: Path) -> None:
    name = "교통_상_1.jpg"
    write_labels(tmp_path, [Row("q1", nfd("사진"), nfd("예"), nfd("뭐?"), nfd(name))])
    write_images(tmp_path, [name])
    ((_, example),) = read(tmp_path)[0]
    assert (example.image, example.question, example.answers) == (name, "뭐?", {"예": 1.0})


def test_decomposed_folder_names(tmp_path: Path) -> None:
    write_labels(tmp_path, ROWS, category=nfd("음식"), level=nfd("중"))
    write_images_of(tmp_path, ROWS)
    assert {example.question_type for _, example in read(tmp_path)[0]} == {"음식"}


def test_images_in_folders_are_found_by_path_or_by_name(tmp_path: Path) -> None:
    rows = [Row("q1", "p1", "예", file="교통/1.jpg"), Row("q2", "p2", "예", file="2.jpg")]
    write_labels(tmp_path, rows)
    write_images(tmp_path, ["교통/1.jpg", "음식/2.jpg"])
    assert [e.image for _, e in read(tmp_path)[0]] == ["교통/1.jpg", "음식/2.jpg"]


def test_write_images_of_one_name_in_two_folders_are_told_apart_by_path(tmp_path: Path) -> None:
    rows = [Row("q1", "p1", "예", file="음식/1.jpg"), Row("q2", "p2", "예", file="교통/1.jpg")]
    write_labels(tmp_path, rows)
    write_images(tmp_path, ["교통/1.jpg", "음식/1.jpg"])
    assert [e.image for _, e in read(tmp_path)[0]] == ["음식/1.jpg", "교통/1.jpg"]


def test_a_decomposed_image_in_a_folder_is_found_by_its_name(tmp_path: Path) -> None:
    write_labels(tmp_path, [Row("q1", "p1", "예", file="사진.jpg")])
    images = write_images(tmp_path, [nfd("교통/사진.jpg")])
    ((_, example),) = read(tmp_path)[0]
    assert (images / example.image).is_file()


def test_order_is_train_first_then_category_then_level(tmp_path: Path) -> None:
    for split, category, level in [
        ("valid", "가", "상"), ("train", "나", "상"), ("train", "가", "하"), ("train", "가", "중"),
        ("train", "가", "상"),
    ]:  # fmt: skip
        write_labels(tmp_path, [Row(f"{split}{category}{level}", "p", "예")], split, category, level)
    write_images(tmp_path, ["p.jpg"])
    ids = [example.id for _, example in read(tmp_path)[0]]
    assert ids == ["train가상", "train가중", "train가하", "train나상", "valid가상"]


def test_val_and_test_never_share_a_image(tmp_path: Path) -> None:
    """Three questions on each of 60 images, spread over the levels."""
    for number, level in enumerate("상중하"):
        rows = [Row(f"{level}{p}", f"p{p}", "예") for p in range(60)]
        write_labels(tmp_path, rows[number:] + rows[:number], "valid", level=level)
    write_images(tmp_path, [f"p{p}.jpg" for p in range(60)])
    images: dict[str, set[str]] = {}
    examples, _ = read(tmp_path)
    for split, example in examples:
        images.setdefault(split, set()).add(example.image)
    assert images.keys() == {"val", "test"}
    assert not images["val"] & images["test"]
    assert all(len(names) >= 15 for names in images.values())
    assert len(examples) == 180


# ------------------------------------------------------------------------ rows that are left out


@pytest.mark.parametrize(
    ("row", "reason", "named"),
    [
        (Row("q9", "p9", "예"), "picture missing", "id q9: p9.jpg"),
        (Row("q9", "p1", "예", ""), "question missing", "id q9: "),
        (Row("q9", "p1", "예", None), "question missing", "id q9: "),
        (Row("q9", "p1", ""), "answer empty", "id q9: "),
        (Row("q9", "p1", "  "), "answer empty", "id q9: "),
        (Row("q9", "p1", None), "answer empty", "id q9: "),
    ],
)
def test_a_row_left_out_is_listed_with_its_id(tmp_path: Path, row: Row, reason: str, named: str) -> None:
    write_labels(tmp_path, ROWS)
    write_labels(tmp_path, [row], level="하")
    write_images_of(tmp_path, ROWS)
    rows, left_out = read(tmp_path)
    assert [example.id for _, example in rows] == ["q1", "q2", "q3"]
    assert left_out.counts == {reason: 1}
    assert left_out.listed[reason][0].startswith(named)


def test_a_question_without_a_record_is_left_out(tmp_path: Path) -> None:
    folder = write_labels(tmp_path, ROWS)
    write_images_of(tmp_path, ROWS)
    write_table(folder / "question.json", {"questions": [{"question_id": "q1", "question": "뭐?"}]})
    rows, left_out = read(tmp_path)
    assert [example.id for _, example in rows] == ["q1"]
    assert left_out.counts == {"question missing": 2}
    assert str(folder / "question.json") in left_out.listed["question missing"][0]


def test_a_image_without_a_record_is_left_out(tmp_path: Path) -> None:
    folder = write_labels(tmp_path, ROWS)
    write_images_of(tmp_path, ROWS)
    write_table(folder / "images.json", {"images": [{"image_id": "p1", "image": "p1.jpg"}]})
    rows, left_out = read(tmp_path)
    assert [example.id for _, example in rows] == ["q1", "q2"]
    assert left_out.listed == {"picture missing": ["id q3: p2"]}


def test_only_the_first_rows_left_out_are_listed_all_are_counted(tmp_path: Path) -> None:
    write_labels(tmp_path, [*ROWS, *(Row(f"x{n}", "gone", "예") for n in range(30))])
    write_images_of(tmp_path, ROWS)
    _, left_out = read(tmp_path)
    assert left_out.counts == {"picture missing": 30}
    assert len(left_out.listed["picture missing"]) == 20


# ----------------------------------------------------------------------- data that is refused


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "annotation.json is empty"),
        (b'{"annotations": [\n  {"question_id": 1,\n]}', "annotation.json:3: not valid JSON"),
        (b"[1]", "annotation.json: no list 'annotations'"),
        (b'{"annotations": {}}', "annotation.json: no list 'annotations'"),
        (b'{"annotations": [1]}', "record 1 lacks 'question_id'"),
        (b'{"annotations": [{"question_id": 1, "image_id": 2}]}', "record 1 lacks 'multiple_choice_answer'"),
        (b'{"annotations": "\n\xff\xff"}', "annotation.json:2: neither UTF-8 nor CP949"),
    ],
)
def test_a_broken_label_file_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    folder = write_labels(tmp_path, ROWS)
    write_images_of(tmp_path, ROWS)
    (folder / "annotation.json").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(folder) in caught.value.message
    assert expected in caught.value.message


@pytest.mark.parametrize("file", ["images.json", "question.json"])
def test_a_missing_label_file_is_named(tmp_path: Path, file: str) -> None:
    folder = write_labels(tmp_path, ROWS)
    write_images_of(tmp_path, ROWS)
    (folder / file).unlink()
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(folder / file) in caught.value.message


def test_a_label_file_that_links_to_itself_is_named(tmp_path: Path) -> None:
    folder = write_labels(tmp_path, ROWS)
    write_images_of(tmp_path, ROWS)
    (folder / "question.json").unlink()
    (folder / "question.json").symlink_to("question.json")
    with pytest.raises(DataError, match=r"question\.json"):
        read(tmp_path)


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no annotation\.json below"):
        read(tmp_path)


def test_a_folder_above_the_root_says_nothing_about_the_split(tmp_path: Path) -> None:
    root = tmp_path / "train_disk" / "Validation"
    folder = write_labels(root, ROWS)
    write_images_of(root, ROWS)
    for place, splits in (
        ("2.검증/교통/상_교통", {"val", "test"}),
        (nfd("1.학습/교통/상_교통"), {"train"}),
        ("시험/교통/상", {"test"}),
    ):
        (root / place).parent.mkdir(parents=True)
        folder = folder.rename(root / place)
        assert {split for split, _ in read(root)[0]} <= splits
    folder.rename(root / "라벨")
    with pytest.raises(DataError, match=r"no folder below .*Validation says whether this is") as caught:
        shards(root)
    assert "2.검증" in caught.value.hint


def test_linked_folders_are_walked_once(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    (root / "라벨").mkdir(parents=True)
    folder = write_labels(tmp_path / "disk", ROWS)
    (root / "라벨" / "train").symlink_to(folder.parent.parent)
    (root / "라벨" / "train2").symlink_to(folder.parent.parent)
    (root / "돌아옴").symlink_to(root)
    write_images_of(tmp_path / "disk", ROWS)
    (root / "images").mkdir()
    (root / "images" / "교통").symlink_to(tmp_path / "disk" / "images")
    rows, left_out = read(root)
    assert [(split, e.id, e.image) for split, e in rows] == [
        ("train", "q1", "교통/p1.jpg"), ("train", "q2", "교통/p1.jpg"), ("train", "q3", "교통/p2.jpg"),
    ]  # fmt: skip
    assert not left_out.counts


def test_one_file_name_in_two_folders_belongs_to_the_category_and_the_split(tmp_path: Path) -> None:
    for category in ("동물", nfd("음식")):
        for split in ("train", "valid"):
            write_labels(
                tmp_path, [Row(f"{split} {nfc(category)}", "p", "예", file="1.jpg")], split, category=category
            )
    write_labels(tmp_path, [Row("식물", "p", "예", file="1.jpg")], category="식물")
    folders = [
        f"{split}/{nfd(category)}/1.jpg"
        for split in ("1.Training", "2.검증")
        for category in ("동물", "음식")
    ]
    write_images(tmp_path, folders)
    rows, left_out = read(tmp_path)
    assert {(e.id, nfc(e.image)) for _, e in rows} == {
        ("train 동물", "1.Training/동물/1.jpg"), ("train 음식", "1.Training/음식/1.jpg"),
        ("valid 동물", "2.검증/동물/1.jpg"), ("valid 음식", "2.검증/음식/1.jpg"),
    }  # fmt: skip
    assert left_out.counts == {"picture missing": 1}  # of 식물, which has no image of its own


# --------------------------------------------------------------------------- the whole index


def index(root: Path, folder: Path, **options: Any) -> IndexReport:
    return write_index(
        shards(root), DatasetOrigin("aihub", root, aihub.find_image_folder(root)), folder, **options
    )


def test_an_index_of_the_tree_finds_its_images(tmp_path: Path) -> None:
    raw = tmp_path / "원본"
    write_labels(raw, ROWS)
    write_labels(raw, [Row(f"v{n}", f"v{n}", "예") for n in range(20)], "valid")
    write_images(raw, ["p1.jpg", "p2.jpg", *(f"v{n}.jpg" for n in range(20))])
    report = index(raw, tmp_path / "index")
    assert report.counts.rows["train"] == 3
    assert report.counts.rows["val"] + report.counts.rows["test"] == 20
    opened = open_index(tmp_path / "index")
    assert opened.answers() == ["예", "빨간색"]
    assert all((opened.images / example.image).is_file() for example in opened.split("val"))


def test_a_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    rows = [Row(f"q{n}", f"p{n % 7}", ["예", "아니요", "빨간색"][n % 3]) for n in range(40)]
    write_labels(raw, rows)
    write_labels(raw, [row._replace(id=f"v{row.id}") for row in rows], "valid")
    write_images_of(raw, rows[:5])  # two images are missing
    written = []
    for name in ("one", "two"):
        index(raw, tmp_path / name, min_count=2)
        written.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert written[0] == written[1]
    assert {"train.jsonl", "val.jsonl", "test.jsonl", "answers.txt", "index.json"} <= written[0].keys()


@pytest.mark.parametrize("value", [None, float("nan"), ["뭐?"]])
def test_the_originals_files_are_not_made_of_what_is_not_a_text(root: Path, value: object) -> None:
    """`--as-upstream` may leave no row out, so it names what it cannot write."""
    write_labels(root, [Row("1", "a", "예"), Row("2", "a", "예", value)])
    write_images(root, ["a.jpg"])
    with pytest.raises(DataError, match="not a text"):
        build_upstream_files("aihub", root, None, root.parent / "files", lambda text: [len(text)])
    assert not (root.parent / "files").exists()


def test_an_image_id_of_two_files_is_nobodys(tmp_path: Path) -> None:
    folder = write_labels(tmp_path, ROWS)
    twice = [{"image_id": "p1", "image": name} for name in ("p1.jpg", "p1.jpg", "다른.jpg")]
    write_table(folder / "images.json", {"images": [*twice, {"image_id": "p2", "image": "p2.jpg"}]})
    write_images(tmp_path, ["p1.jpg", "p2.jpg", "다른.jpg"])
    rows, left_out = read(tmp_path)
    assert [example.id for _, example in rows] == ["q3"]
    assert left_out.listed == {
        "several pictures of that name": [f"id {id}: image id p1: p1.jpg or 다른.jpg?" for id in ("q1", "q2")]
    }


@pytest.mark.parametrize("mark", ["", "[원천]"])
def test_levels_that_number_their_images_alike_have_their_own(tmp_path: Path, mark: str) -> None:
    for level in "상중하":
        write_labels(tmp_path, [Row(f"q{level}", "1", "예")], level=level)
    images = [f"{level}_train_교통/1.jpg" for level in "상중하"]
    touch(tmp_path / "images" / f"1.Training/{mark}교통", images)
    rows, left_out = read(tmp_path)
    assert [(e.id, Path(e.image).parent.name) for _, e in rows] == [
        (f"q{level}", f"{level}_train_교통") for level in "상중하"
    ]
    assert not left_out.counts
