"""Odd and unreadable images, from the command line: what is answered, what is said, what the file holds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import Result
from kovqa_core.errors import KovqaError
from PIL import Image
from typer.testing import CliRunner

from kovqa_cli.main import app
from tests.data.test_image_io import chunk, encoded, much_text, photo, with_chunk

PAGE, POINTER = b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_png_with_broken_exif_or_much_text_is_answered(trained: Path, tmp_path: Path) -> None:
    png = encoded(photo())
    answers = []
    for extra in (b"", chunk(b"eXIf", b"\0\x08\0\2"), much_text(b"zTXt", 2 << 20)):
        (tmp_path / "a.png").write_bytes(with_chunk(png, extra))
        done = run("predict", "--model", trained, "-i", tmp_path / "a.png", "--question", "무엇?", "--json")
        assert done.exit_code == 0
        answers.append(json.loads(done.stdout))
    assert answers[0] == answers[1] == answers[2]


def test_a_transparent_image_and_a_white_one_get_one_answer(trained: Path, tmp_path: Path) -> None:
    Image.new("LA", (32, 32), (0, 0)).save(tmp_path / "clear.png")
    for name, grey in (("white", 255), ("black", 0)):
        Image.new("RGB", (32, 32), (grey, grey, grey)).save(tmp_path / f"{name}.png")
    clear, white, black = (
        json.loads(
            run(
                "predict", "--model", trained, "-i", tmp_path / f"{name}.png", "--question", "q", "--json"
            ).stdout
        )
        for name in ("clear", "white", "black")
    )
    assert clear == white
    assert clear["score"] != black["score"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twelve rows: eight images are whole or lack their last bytes, four are none."""
    jpeg = encoded(photo(), "JPEG")
    images = {f"{n}.jpg": jpeg for n in range(7)}
    images |= {
        "endless.jpg": jpeg[:-2],
        "half.jpg": jpeg[: len(jpeg) // 2],
        "page.jpg": PAGE,
        "lfs.jpg": POINTER,
    }
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "pipe.jpg")
    rows = [f"{name},{name},무엇?" for name in (*images, "pipe.jpg")]
    (tmp_path / "질문.csv").write_text("id,image,question\n" + "\n".join(rows) + "\n", "utf-8")
    return tmp_path / "질문.csv"


def test_unreadable_images_are_named_and_counted_and_filled_if_asked(
    trained: Path, table: Path, tmp_path: Path
) -> None:
    words = ["predict", "--model", trained, "--input", table, "-o", tmp_path / "답.jsonl", "--batch", 4]
    refused = run(*words)
    assert isinstance(refused.exception, KovqaError)
    assert "of 12 rows" in str(refused.exception)
    assert "id half.jpg: image " in str(refused.exception)
    left_out = run(*words, "--allow-left-out", "--json")
    document = json.loads(left_out.stdout)
    assert (document["rows"], document["left_out"]) == (8, 4)
    says = document["left_out_rows"]
    assert "cut off" in says["half.jpg"]
    assert "it is an HTML page" in says["page.jpg"]
    assert "git lfs pull" in says["lfs.jpg"]
    assert "it is a named pipe" in says["pipe.jpg"]
    filled = run(*words, "--allow-left-out", "--fill-unreadable", "")
    assert (
        "4 of 12 rows cannot be answered, and have the text of --fill-unreadable: id half.jpg"
        in filled.stderr
    )
    answers = [json.loads(line) for line in (tmp_path / "답.jsonl").read_text("utf-8").splitlines()]
    assert len(answers) == 12
    assert [row["answer"] for row in answers[8:]] == [""] * 4
    assert all(row["answer"] for row in answers[:8])


def test_filling_is_for_tables(tmp_path: Path) -> None:
    for words in (["predict", "--question", "q"], ["caption"]):
        refused = run(*words, "-i", tmp_path / "a.png", "--fill-unreadable", "")
        assert "--fill-unreadable is for rows of a table" in str(refused.exception)


def test_one_unreadable_image_is_one_line_without_an_id(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PAGE)
    refused = run("predict", "--model", trained, "-i", tmp_path / "a.jpg", "--question", "q")
    assert isinstance(refused.exception, KovqaError)
    assert refused.exception.message.startswith(
        f"image {tmp_path / 'a.jpg'} cannot be read (it is an HTML page"
    )
