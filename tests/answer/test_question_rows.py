"""The images of rows to answer: the same that `kovqa index` finds."""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from kovqa_core.answer.job import AnswerBackend, AnswerJob, run_answer_job
from kovqa_core.answer.question_rows import QuestionRow, read_question_table
from kovqa_core.data.example import Answer
from kovqa_core.errors import DataError
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import open_index
from kovqa_core.messages.readable_name import readable_name
from kovqa_core.progress import OnProgress

from tests.index.raw_data import touch, write


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


NAMES = {
    "동물/1.png": "동물/1.png", "동물\\1.png": "동물/1.png", r"C:\자료\음식\1.png": "음식/1.png", "음식/1": "음식/1.png",
    "./음식//1.png": "음식/1.png", "2.png": "음식/2.PNG", "2": "음식/2.PNG", "나무": "동물/나무.jpg",
    nfd("나무.jpg"): "동물/나무.jpg",
    "고래.png": "동물/고래.png",
}  # fmt: skip


def write_images(root: Path) -> None:
    touch(
        root,
        ["동물/1.png", "음식/1.png", "음식/2.PNG", nfd("동물/나무.jpg"), ".숨은/2.png", "__MACOSX/2.png"],
    )
    Path(os.fsdecode(os.fsencode(root / "동물") + "/고래.png".encode("cp949"))).touch()


def test_a_table_to_answer_has_the_images_that_its_index_has(tmp_path: Path) -> None:
    write_images(tmp_path)
    table = tmp_path / "표.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        rows = [[str(n), name, "?", "예"] for n, name in enumerate(NAMES)]
        csv.writer(stream).writerows([["id", "image", "question", "answer"], *rows])
    found = {row.example.id: row.example.image for row in read_question_table(table)}
    assert all((tmp_path / image).is_file() for image in found.values())
    shown = [unicodedata.normalize("NFC", readable_name(image)) for image in found.values()]
    assert shown == list(NAMES.values())
    build_index("table", table, None, tmp_path / "색인")
    index = open_index(tmp_path / "색인")
    examples = [*index.split("train"), *index.split("val")]
    assert {e.id: e.image for e in examples} == found
    lines = tmp_path / "색인" / "train.jsonl"
    assert [row.example.image for row in read_question_table(lines)] == [
        e.image for e in index.split("train")
    ]


def test_dacons_own_test_table_is_answered_as_it_comes(tmp_path: Path) -> None:
    for top in ("image/", "images/", ""):
        root = tmp_path / f"open {top.strip('/')}"
        touch(root / top, ["train/TEST_0.jpg", "test/TEST_0.jpg", "train/TEST_1.jpg"])
        write(root / "test.csv", "ID,image_id,question\nT0,TEST_0,Why?\nT1,TEST_1,Why?\n")
        first, second = read_question_table(root / "test.csv")
        assert (first.example.image, first.fault) == (f"{top}test/TEST_0.jpg", "")
        assert second.fault == f"image TEST_1 is missing (in another folder: {top}train/TEST_1.jpg)"


@pytest.mark.parametrize("images", [None, "그림"])
def test_rows_whose_image_may_be_another_are_not_asked_but_counted(
    tmp_path: Path, images: str | None
) -> None:
    write_images(tmp_path / (images or ""))
    rows = [{"id": f"Q{n}", "image": "2.png", "question": "?"} for n in range(19)]
    odd = [
        {"id": "nobody's", "image": "1.png", "question": "?"},
        {"id": "type", "image": "1.png", "question": "?", "kind": "음식"},
        {"id": "split", "image": "1", "question": "?", "split": "동물"},
    ]
    write(tmp_path / "표.jsonl", "\n".join(map(json.dumps, [*rows, *odd])))
    asked: list[str] = []

    def answer_rows(
        job: AnswerJob, rows: Sequence[QuestionRow], on_progress: OnProgress
    ) -> Iterator[tuple[QuestionRow, Answer]]:
        for row in rows:
            asked.append(row.example.image)
            yield row, Answer("예", 0.5)

    job = AnswerJob(
        tmp_path / "표.jsonl", tmp_path / "답.jsonl", images=tmp_path / images if images else None
    )
    table = run_answer_job(job, AnswerBackend("m", {"model": "m"}, answer_rows))
    assert asked[-3:] == ["음식/2.PNG", "음식/1.png", "동물/1.png"]
    assert table.left_out == {
        "nobody's": "image 1.png: several files have this name (동물/1.png, 음식/1.png): write its whole path"
    }
    write(tmp_path / "표.jsonl", "\n".join(map(json.dumps, odd)))
    with pytest.raises(DataError, match=r"1 of 3 rows .*several files have this name"):
        run_answer_job(replace(job, force=True), AnswerBackend("m", {"model": "m"}, answer_rows))


def test_lines_of_an_index_name_the_very_files(tmp_path: Path) -> None:
    """An image that is gone is missing, whatever else has its name."""
    touch(tmp_path, ["1.png", "음식/2.png"])
    write(tmp_path / "표.csv", "id,image,question,answer,split\n1,1.png,?,예,test\n2,음식/2.png,?,예,test\n")
    build_index("table", tmp_path / "표.csv", None, tmp_path / "색인")
    (tmp_path / "1.png").rename(tmp_path / "음식" / "1.png")
    rows = read_question_table(tmp_path / "색인" / "test.jsonl")
    assert [(row.example.image, row.fault) for row in rows] == [("1.png", ""), ("음식/2.png", "")]
