"""`kovqa explain`: an image of where an answer comes from, the question's words, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Kovqa, Small

QUESTION = "분홍색 별은 무슨 색인가요?"


def image_of(small: Small) -> Path:
    return min((small.root / "images").glob("*.png"))


def test_explain_writes_an_image_and_says_the_same_as_json(
    kovqa: Kovqa, kovqa_process: Kovqa, small: Small, trained: Path, tmp_path: Path
) -> None:
    words = ("explain", "-i", image_of(small), "--question", QUESTION, "--model", trained)
    drawn = kovqa_process(*words, "-o", "지도.png")
    assert (drawn.returncode, drawn.stdout) == (0, "지도.png\n"), drawn.stderr
    assert "answer: " in drawn.stderr
    with Image.open(tmp_path / "지도.png") as card:
        assert card.format == "PNG"
        assert card.width > 2 * 480
    assert [path.name for path in tmp_path.iterdir()] == ["지도.png"]  # no lock, no part of a file

    told = json.loads(kovqa(*words, "--json").stdout)
    answered = json.loads(kovqa("predict", *words[1:], "--json").stdout)
    assert told["schema"] == 1
    assert (told["answer"], told["score"]) == (answered["answer"], answered["score"])
    assert [each["word"] for each in told["words"]] == QUESTION.split()
    assert [len(row) for row in told["heat"]] == [16] * 16
    # Six steps of training: no place matters yet, and that is said.
    assert told["doubt"]
    assert f"warning: {told['doubt']}" in drawn.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--question", "뭐?", "-o", "heat.jpg"), 2, "is written as PNG [KOVQA-2091] → use -o heat.png"),
        (("--question", " ", "-o", "heat.png"), 2, "empty"),
        ((), 2, "a caption has no words"),
        (("--question", "뭐?", "--method", "oclusion"), 2, "did you mean occlusion?"),
        (("--question", "뭐?", "-i", "text.png"), 3, "text.png cannot be read"),
        (("-o", "heat.png"), 3, "no finished caption run"),
    ],
)
def test_explain_refuses(
    kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path, words: tuple[str, ...], code: int, text: str
) -> None:
    (tmp_path / "text.png").write_text("그림이 아님", "utf-8")
    model = () if text == "no finished caption run" else ("--model", trained)
    done = kovqa("explain", "-i", image_of(small), *model, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_image_itself_is_not_written_over(
    kovqa: Kovqa, trained: Path, small: Small, tmp_path: Path
) -> None:
    (tmp_path / "x.png").write_bytes(image_of(small).read_bytes())
    done = kovqa("explain", "-i", "x.png", "--question", "뭐?", "--model", trained, "-o", "x.png")
    assert done.returncode == 2
    assert (tmp_path / "x.png").read_bytes() == image_of(small).read_bytes()


def test_completion_knows_the_methods() -> None:
    from kovqa_cli.completion import complete_explain_method

    assert complete_explain_method("o") == ["occlusion"]
