"""Images that lie in a parquet file are files of its index: written with it, replaced with it, gone without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import open_index
from kovqa_core.index.report import IndexReport

from tests.data.test_parquet_tables import PNG, RED, image_bytes, parquet


def rows(split: str = "train", number: int = 4) -> list[dict[str, object]]:
    images = [{"bytes": PNG, "path": None}, {"bytes": RED, "path": "a.png"}]
    answers = [{"answer": "예", "answer_id": 1}, {"answer": "예", "answer_id": 2}]
    return [
        {"id": n, "image": images[n % 2], "question": "무엇?", "answers": answers, "split": split}
        for n in range(number)
    ]


def index_of(root: Path, folder: Path) -> IndexReport:
    return build_index("table", root, None, folder)


def test_images_are_files_of_the_index(tmp_path: Path) -> None:
    table, folder = parquet(tmp_path / "t.parquet", rows()), tmp_path / "index"
    report = index_of(table, folder)
    index = open_index(folder)
    assert report.image_folder == "images" and index.images == folder / "images"
    examples = [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]
    assert [(index.images / each["image"]).read_bytes() for each in examples] == [PNG, RED, PNG, RED]
    assert [each["answers"] for each in examples] == [{"예": examples[0]["answers"]["예"]}] * 4
    assert len(list(index.images.iterdir())) == 2
    # It may move as a whole, and is replaced as a whole.
    moved = folder.rename(tmp_path / "moved")
    assert open_index(moved).images == moved / "images"
    index_of(parquet(table, rows(number=1)), moved)
    assert len(list((moved / "images").iterdir())) == 1


def test_images_of_the_user_beside_an_index_are_not_lost(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    table, folder = tmp_path / "t.jsonl", tmp_path / "index"
    table.write_text('{"id": 1, "image": "a.png", "question": "q", "answer": "a", "split": "train"}\n')
    index_of(table, folder)
    (folder / "images").mkdir()
    with pytest.raises(SettingsError, match="holds an index and also images"):
        index_of(table, folder)


def test_an_interrupted_index_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, folder = (
        parquet(tmp_path / "t.parquet", [*rows(), {"id": 9, "split": "no split"}]),
        tmp_path / "index",
    )
    with pytest.raises(DataError):
        index_of(parquet(table, [*rows(), {**rows()[0], "id": 9, "split": "no split"}]), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_check_opens_images_that_are_about_to_be_written(tmp_path: Path) -> None:
    broken = {**rows()[0], "id": 9, "image": {"bytes": PNG[:30], "path": "broken.png"}}
    table = parquet(tmp_path / "t.parquet", [*rows(), broken])
    for folder in (None, tmp_path / "index"):
        report = build_index("table", table, None, folder, check_images=True)
        assert {each.reason: each.count for each in report.counts.left_out} == {"picture unreadable": 1}
        assert report.counts.rows["train"] == 4
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_that_the_user_names_is_meant(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image_bytes(9))
    table = parquet(tmp_path / "t.parquet", [rows()[1]])
    build_index("table", table, tmp_path, tmp_path / "index")
    index = open_index(tmp_path / "index")
    assert index.images == tmp_path and not (tmp_path / "index" / "images").exists()


def test_the_files_of_a_folder_are_split_by_their_names(tmp_path: Path) -> None:
    root = tmp_path / "root" / "data"
    root.mkdir(parents=True)
    without = [{name: value for name, value in row.items() if name not in ("id", "split")} for row in rows()]
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"):
        parquet(root / f"{name}.parquet", without)
    unanswered = [{name: value for name, value in row.items() if name != "answers"} for row in without]
    parquet(root / "test-00000-of-00001.parquet", unanswered)
    report = index_of(tmp_path / "root", tmp_path / "index")
    assert dict(report.counts.rows) == {"train": 8, "val": 4, "test": 4}
    first = json.loads((tmp_path / "index" / "train.jsonl").read_text("utf-8").splitlines()[0])
    assert first["id"] == "train-00000-of-00002/1"
    with pytest.raises(DataError, match="is not a file"):
        index_of(tmp_path / "index", tmp_path / "other")


def test_notes_of_the_reader_stand_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    table = tmp_path / "t.csv"
    table.write_text("id;image;question;answer\n1;a.png;q;a\n2;;q;a\n")
    report = build_index("table", table, None, tmp_path / "index")
    assert report.notes == ["cells are separated by semicolons"]
    assert {each.reason: each.first_rows for each in report.counts.left_out} == {
        "no picture named": (f"{table}:3: id 2",)
    }
    assert json.loads((tmp_path / "index" / "index.json").read_text("utf-8"))["notes"] == report.notes


def test_one_file_of_the_hub_and_its_folders_say_the_split_too(tmp_path: Path) -> None:
    rows_of_hub = [
        {name: value for name, value in row.items() if name not in ("id", "split")} for row in rows()
    ]
    file = parquet(tmp_path / "test-00000-of-00001.parquet", rows_of_hub)
    assert dict(index_of(file, tmp_path / "index").counts.rows) == {"train": 0, "val": 0, "test": 4}
    # By the hash of the images: a name of another form says nothing.
    renamed = file.rename(tmp_path / "test.parquet")
    assert index_of(renamed, tmp_path / "index").counts.rows["test"] == 0
    for folder in ("train", "validation", "2.시험"):
        (tmp_path / "root" / "default" / folder).mkdir(parents=True)
        parquet(tmp_path / "root" / "default" / folder / "0000.parquet", rows_of_hub)
    report = index_of(tmp_path / "root", tmp_path / "index")
    assert dict(report.counts.rows) == {"train": 4, "val": 4, "test": 4}
