"""Index folders: written whole, read line by line, however they were edited since."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.index import writer
from kovqa_core.index.left_out import LeftOutRows
from kovqa_core.index.reader import IndexSplit, open_index
from kovqa_core.index.report import DatasetOrigin, IndexReport, read_report
from kovqa_core.index.shards import DatasetShard, SourceOptions, SplitExamples
from kovqa_core.index.sources import aihub
from kovqa_core.index.writer import write_index
from kovqa_core.progress import Progress

from tests.index.raw_data import Row, left_out_counts, left_out_rows, write_images, write_labels


def example(number: int, answer: str = "예", image: str | None = None) -> Example:
    return Example(
        f"id{number}", image or f"사진{number}.jpg", "무엇인가요?", {answer: 1.0} if answer else {}, "교통"
    )


def write(root: Path, rows: Iterable[tuple[str, Example]], **options: Any) -> IndexReport:
    """Write rows as the index `root/index` of images in `root/images`."""
    (root / "images").mkdir(exist_ok=True)

    def read(_left_out: LeftOutRows) -> SplitExamples:
        yield from rows

    return write_index(
        [DatasetShard(read)], DatasetOrigin("made", root, root / "images"), root / "index", **options
    )


def some(answers: str, split: str = "train", first: int = 0) -> list[tuple[str, Example]]:
    """One row per letter, which is its answer."""
    return [(split, example(first + n, letter)) for n, letter in enumerate(answers)]


# ---------------------------------------------------------------------------------- writing


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = some("가나다")
    write(tmp_path, [*rows, ("val", example(9))])
    index = open_index(tmp_path / "index")
    assert list(index.split("train")) == [e for _, e in rows]
    assert list(index.split("val")) == [example(9)]
    assert list(index.split("test")) == []
    assert index.answers() == ["가", "나", "다"]
    assert index.images == tmp_path / "images"
    assert "사진0" in (tmp_path / "index" / "train.jsonl").read_text("utf-8")


def test_the_report_counts_rows_images_and_answers(tmp_path: Path) -> None:
    rows = [*some("가가나"), *some("가다", "val", 10), ("test", example(20, "나", "사진0.jpg"))]
    report = write(tmp_path, rows)
    assert report.counts.rows == {"train": 3, "val": 2, "test": 1}
    assert report.counts.images == {"train": 3, "val": 2, "test": 1}
    assert report.counts.classes == 2
    assert report.counts.class_coverage == {"val": 0.5, "test": 1.0}
    assert report.counts.images_shared_with_train == {"val": 0, "test": 1}
    stored = json.loads((tmp_path / "index" / "index.json").read_text("utf-8"))
    assert json.loads(json.dumps(report.json_fields())).items() <= stored.items()
    assert read_report(tmp_path / "index") == report


def test_classes_come_from_training_rows_only(tmp_path: Path) -> None:
    write(tmp_path, [*some("가"), *some("나", "val", 10), *some("다", "test", 20)])
    assert open_index(tmp_path / "index").answers() == ["가"]


def test_rare_answers_are_no_classes_and_their_training_rows_are_dropped(tmp_path: Path) -> None:
    report = write(tmp_path, [*some("가나가다가나"), *some("다", "val", 10)], min_count=2)
    index = open_index(tmp_path / "index")
    assert index.answers() == ["가", "나"]
    assert [e.id for e in index.split("train")] == ["id0", "id1", "id2", "id4", "id5"]
    assert [e.id for e in index.split("val")] == ["id10"]
    assert report.counts.rows == {"train": 5, "val": 1, "test": 0}
    assert report.counts.images["train"] == 5
    assert left_out_counts(report) == {"answer seen fewer than 2 times": 1}
    assert left_out_rows(report) == {"answer seen fewer than 2 times": ["id id3: 다"]}
    assert sorted(p.name for p in (tmp_path / "index").iterdir()) == [
        "answers.txt", "index.json", "test.jsonl", "test.offsets", "train.jsonl", "train.offsets",
        "val.jsonl", "val.offsets",
    ]  # fmt: skip


def test_of_an_id_that_appears_twice_in_a_split_the_first_row_is_kept(tmp_path: Path) -> None:
    rows = [
        ("train", example(1, "예")),
        ("train", example(2)),
        ("train", example(1, "아니요")),
        ("val", example(1)),
    ]
    report = write(tmp_path, rows)
    assert [(e.id, dict(e.answers)) for e in IndexSplit(tmp_path / "index" / "train.jsonl")] == [
        ("id1", {"예": 1.0}), ("id2", {"예": 1.0}),
    ]  # fmt: skip
    assert report.counts.rows == {"train": 2, "val": 1, "test": 0}
    assert left_out_rows(report) == {"question id appears twice, with other answers": ["id id1: 무엇인가요?"]}


def test_ids_of_equal_checksum_are_told_apart(tmp_path: Path) -> None:
    """ "plumless" and "buckeroo" have the same CRC-32."""
    examples = [Example(id, "사진.jpg", "무엇인가요?", {"예": 1.0}) for id in ("plumless", "buckeroo")]
    assert write(tmp_path, [("train", e) for e in examples]).counts.rows["train"] == 2


def test_a_small_index_keeps_every_answer(tmp_path: Path) -> None:
    assert write(tmp_path, some("가나다")).counts.min_count == 1


def test_no_row_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable row"):
        write(tmp_path, [])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images"]


def test_no_row_left_by_min_count_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write(tmp_path, some("가나"), min_count=5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images"]


def test_an_error_of_the_source_keeps_the_index_that_was_there(tmp_path: Path) -> None:
    write(tmp_path, some("가"))

    def broken() -> SplitExamples:
        yield "train", example(1)
        raise DataError("x.json:3: not valid JSON")

    with pytest.raises(DataError, match="not valid JSON"):
        write(tmp_path, broken())
    assert [e.id for e in open_index(tmp_path / "index").split("train")] == ["id0"]
    assert not (tmp_path / ".index.part").exists()


def test_an_index_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, some("가나다"))
    write(tmp_path, some("라", first=5))
    assert [e.id for e in open_index(tmp_path / "index").split("train")] == ["id5"]


def test_a_folder_with_foreign_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "thesis.doc").write_text("years of work")
    with pytest.raises(SettingsError, match="holds files that are not an index") as caught:
        write(tmp_path, some("가"))
    assert "-o" in caught.value.hint
    assert (tmp_path / "index" / "thesis.doc").read_text() == "years of work"


def test_what_lies_beside_an_index_is_not_lost_with_it(tmp_path: Path) -> None:
    """The folder is replaced as a whole: a run in it, answers, notes."""
    write(tmp_path, some("가"))
    for name in ("run.yaml", "answers.jsonl", "메모.txt"):
        (tmp_path / "index" / name).write_text("mine", "utf-8")
        with pytest.raises(SettingsError, match=f"holds an index and also {name}, which would be lost"):
            write(tmp_path, some("가"))
        assert (tmp_path / "index" / name).read_text("utf-8") == "mine"
        (tmp_path / "index" / name).unlink()
    write(tmp_path, some("가"))


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    assert write(tmp_path, some("가")).counts.rows["train"] == 1


def test_a_file_where_the_index_should_go_is_explained(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("not a folder")
    with pytest.raises(SettingsError):
        write(tmp_path, some("가"))
    assert (tmp_path / "index").read_text() == "not a folder"


def test_progress_is_reported_every_thousand_rows(tmp_path: Path) -> None:
    reported: list[Progress] = []
    write(tmp_path, (("train", example(n)) for n in range(2500)), on_progress=reported.append)
    assert [(each.stage, each.done, each.unit) for each in reported] == [
        ("reading made", 1000, "rows"), ("reading made", 2000, "rows"),
    ]  # fmt: skip


def test_processes_side_by_side_write_the_same_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten level folders of 500 questions, one id twice, in some under another image; the processes count them."""
    for number in range(10):
        rows = [
            Row(
                f"{number}-{n % 499}",
                f"p{(n if number % 2 else n % 499) % 7}",
                "예" if n % 3 else f"{number} {n}",
            )
            for n in range(500)
        ]
        write_labels(tmp_path, rows, "train" if number < 7 else "valid", category=f"분류{number}")
    write_images(tmp_path, [f"p{n}.jpg" for n in range(6)])
    shards = aihub.dataset_shards(tmp_path, aihub.find_image_folder(tmp_path), SourceOptions())
    origin = DatasetOrigin("aihub", tmp_path, tmp_path / "images")
    alone = write_index(shards, origin, tmp_path / "alone", min_count=2)
    monkeypatch.setattr(writer, "_PARALLEL_MIN_BYTES", 0)
    monkeypatch.setattr(writer, "usable_cpu_count", lambda: 2)
    reported: list[Progress] = []
    together = write_index(shards, origin, tmp_path / "many", min_count=2, on_progress=reported.append)
    assert together == alone
    assert left_out_counts(alone).keys() == {
        "picture missing", "question id appears twice, with other answers", "answer seen fewer than 2 times",
    }  # fmt: skip
    assert alone.counts.qualified_ids == 10 and alone.counts.first_qualified_id == "p0.jpg#1-0"
    for path in (tmp_path / "alone").iterdir():
        assert path.read_bytes() == (tmp_path / "many" / path.name).read_bytes()
    assert reported[-1].fraction == 1


def test_an_error_in_a_process_is_the_users_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_PARALLEL_MIN_BYTES", 0)
    monkeypatch.setattr(writer, "usable_cpu_count", lambda: 2)
    for category in "가나다":
        folder = write_labels(tmp_path, [Row("1", "p", "예")], category=category)
    (folder / "question.json").write_text('{"questions": [\n{]}')
    shards = aihub.dataset_shards(tmp_path, tmp_path, SourceOptions())
    with pytest.raises(DataError, match=r"다.question\.json:2: not valid JSON"):
        write_index(shards, DatasetOrigin("aihub", tmp_path, tmp_path), tmp_path / "index")
    assert not (tmp_path / "index").exists() and not (tmp_path / ".index.part").exists()


# ---------------------------------------------------------------------------------- reading


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """A training split of five lines, of different lengths."""
    write(tmp_path, [("train", example(10**n)) for n in range(5)])
    return tmp_path / "index" / "train.jsonl"


def ids(path: Path) -> list[str]:
    return [e.id for e in IndexSplit(path)]


def test_lines_are_found_by_number(train: Path) -> None:
    split = IndexSplit(train)
    assert len(split) == 5
    assert [split[n].id for n in (3, 0, -1)] == ["id1000", "id1", "id10000"]
    for outside in (5, -6):
        with pytest.raises(IndexError):
            split[outside]


def test_a_split_goes_to_another_process(train: Path) -> None:
    split = IndexSplit(train)
    assert split[0].id == "id1"
    assert [e.id for e in pickle.loads(pickle.dumps(split))] == ids(train)


def test_without_offsets_the_lines_are_found_by_looking(train: Path) -> None:
    before = ids(train)
    train.with_suffix(".offsets").unlink()
    assert ids(train) == before


def test_offsets_older_than_the_lines_are_not_believed(train: Path) -> None:
    lines = train.read_text("utf-8").splitlines(keepends=True)
    train.write_text("".join(lines[2:]), encoding="utf-8")
    offsets = train.with_suffix(".offsets")
    an_hour_ago = train.stat().st_mtime - 3600
    os.utime(offsets, (an_hour_ago, an_hour_ago))
    assert ids(train) == ["id100", "id1000", "id10000"]


@pytest.mark.parametrize("length", [0, 3, 16], ids=["empty", "torn", "too short"])
def test_offsets_that_cannot_be_right_are_not_believed(train: Path, length: int) -> None:
    offsets = train.with_suffix(".offsets")
    offsets.write_bytes(offsets.read_bytes()[:length])
    assert len(IndexSplit(train)) == 5
    assert len(ids(train)) == 5


def test_offsets_of_other_lines_are_not_believed(train: Path) -> None:
    """Edited just after it was written, or copied with new times: the times tell nothing."""
    lines = train.read_text("utf-8").splitlines(keepends=True)
    train.write_text("".join(lines[1:]), encoding="utf-8")
    os.utime(train.with_suffix(".offsets"))
    assert ids(train) == ["id10", "id100", "id1000", "id10000"]


def test_a_last_line_without_its_end_is_a_line(train: Path) -> None:
    before = ids(train)
    train.write_bytes(train.read_bytes().rstrip(b"\n"))
    train.with_suffix(".offsets").unlink()
    assert ids(train) == before


@pytest.mark.parametrize(
    "line", ["", "hello", "[1]", '{"id": "1", "image": "a.jpg"}', '{"id": "1", "question": 2, "what": 3}']
)
def test_a_line_that_is_no_example_is_named(train: Path, line: str) -> None:
    lines = train.read_text("utf-8").splitlines()
    train.write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n", encoding="utf-8")
    train.with_suffix(".offsets").unlink()
    with pytest.raises(DataError, match=r"train\.jsonl:3: not an index line"):
        ids(train)


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no index file .*train\.jsonl"):
        IndexSplit(tmp_path / "train.jsonl")


def test_a_folder_that_is_no_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no index in") as caught:
        open_index(tmp_path)
    assert "kovqa index" in caught.value.hint


def test_an_index_and_its_images_may_move_together(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", some("가"))
    (tmp_path / "a").rename(tmp_path / "b")
    assert open_index(tmp_path / "b" / "index").images == tmp_path / "b" / "images"


def test_images_that_moved_alone_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path, some("가"))
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is not there") as caught:
        open_index(tmp_path / "index")
    assert "data.images" in caught.value.hint
    opened = open_index(tmp_path / "index", tmp_path / "elsewhere")
    assert opened.images == tmp_path / "elsewhere"


@pytest.mark.parametrize("content", ["[]", "{}", '{"rows": {}}'])
def test_a_report_that_is_not_one_is_named(tmp_path: Path, content: str) -> None:
    write(tmp_path, some("가"))
    (tmp_path / "index" / "index.json").write_text(content)
    with pytest.raises(DataError, match=r"index\.json is not the report of an index"):
        open_index(tmp_path / "index")
