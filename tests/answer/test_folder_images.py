"""A folder of images to caption, whatever its files are called."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from kovqa_core.answer.folder_images import rows_from_images
from kovqa_core.answer.job import AnswerBackend, AnswerJob, AnswerOptions, run_answer_job
from kovqa_core.data.example import Answer
from kovqa_core.errors import DataError
from PIL import Image


def draw(path: Path, format: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path, format)


def test_what_files_hold_decides_and_the_others_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "그림"
    for name, format in {
        "b.jfif": "JPEG",
        "A.JPG": "JPEG",
        "c": "GIF",
        "d.png": "JPEG",
        "e.dat": "TGA",
        "하위/f.txt": "PNG",
    }.items():
        draw(root / name, format)
    draw(tmp_path / "디스크" / "1.png", "PNG")
    (root / "링크").symlink_to(tmp_path / "디스크")
    (root / "돌아옴").symlink_to(root)
    for name in ("._A.JPG", ".DS_Store", "__MACOSX/A.JPG", "Thumbs.db", "메모.txt", "x.svg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"BM and P1 begin words")
    (root / "빈.jpg").touch()  # called an image: a row, whose fault is reported
    passed_over: list[str] = []
    rows = rows_from_images(root, passed_over.append)
    names = ["A.JPG", "b.jfif", "c", "d.png", "e.dat", "링크/1.png", "빈.jpg", "하위/f.txt"]
    assert [row.example.image for row in rows] == [row.example.id for row in rows] == names
    assert passed_over == ["x.svg", "메모.txt"]
    backend = AnswerBackend(
        "m", {"model": "m"}, lambda job, rows, _: ((row, Answer("개", 1)) for row in rows)
    )
    table = run_answer_job(AnswerJob(root, tmp_path / "o.jsonl", AnswerOptions(task="caption")), backend)
    assert (table.rows, list(table.passed_over)) == (8, passed_over)


def test_names_that_are_not_utf_8_have_ids_that_can_be_written(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path / "그림")
    for name in ("고.png".encode("cp949"), b"\xff.png", unicodedata.normalize("NFD", "강.png").encode()):
        draw(Path(os.fsdecode(root + b"/" + name)), "PNG")
    rows = rows_from_images(tmp_path / "그림", print)
    assert {row.example.id for row in rows} == {"고.png", "\\xff.png", "강.png"}
    assert all((tmp_path / "그림" / row.example.image).is_file() for row in rows)
    assert all(row.example.line().encode() for row in rows)
    draw(tmp_path / "그림" / "고.png", "PNG")
    with pytest.raises(DataError, match=r"two images are called 고\.png"):
        rows_from_images(tmp_path / "그림", print)


def test_a_folder_without_images_says_which_formats_there_are(tmp_path: Path) -> None:
    (tmp_path / "표.csv").touch()
    with pytest.raises(DataError, match=r"no image in .* \(1 other files\)") as caught:
        rows_from_images(tmp_path, print)
    assert "HEIC" in caught.value.hint
