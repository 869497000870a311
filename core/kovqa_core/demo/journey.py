"""The demo's journey: the commands a user would type, one after the other."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kovqa_core.data.index import Split, open_index
from kovqa_core.demo.dataset import write_dataset
from kovqa_core.demo.sheet import Row, contact_sheet
from kovqa_core.errors import KovqaError
from kovqa_core.files import read_text

HELD_OUT = 400  # pictures nobody learns from
_SHOWN_RIGHT, _SHOWN_WRONG = 14, 6  # on the contact sheet


def draw(folder: Path, pictures: int, seed: int, progress: Callable[[int, int], None] | None = None) -> None:
    """Draw the scenes and write their questions, in AI-Hub 104 layout, into `folder`/raw."""
    write_dataset(folder / "raw", pictures, HELD_OUT, seed, progress)


def commands(folder: Path, sets: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """(what it does, the words of the command), in order."""
    raw, index, tokenizer, run = (folder / name for name in ("raw", "index", "tokenizer.model", "run"))
    example = next(iter(sorted((raw / "images").glob("*.png"), reverse=True)), raw)
    test, predictions = index / "test.jsonl", folder / "predictions.jsonl"
    options = [word for assignment in sets for word in ("--set", assignment)]
    return [
        ("A Korean tokenizer, from the training questions",
         ["tokenizer", "train", str(raw / "text.txt"), "-o", str(tokenizer), "--vocab-size", "500"]),
        ("An index of the raw data",
         ["index", "aihub", "--root", str(raw), "-o", str(index)]),
        ("A small BEiT-3, from scratch",
         ["train", "-r", "tiny", "-p", "cpu", "--data", str(index), "--tokenizer", str(tokenizer), "-o", str(run),
          "--resume", *options]),
        ("Answers to questions it has never read, about pictures it has never seen",
         ["predict", "--model", str(run), "--input", str(test), "-o", str(predictions)]),
        ("How many are right, kind by kind, beside always giving the most frequent answer",
         ["evaluate", str(predictions), "--index", str(test)]),
        ("One question about one picture",
         ["predict", "--model", str(run), "-i", str(example), "--question", "그림에 도형이 모두 몇 개 있나요?"]),
    ]  # fmt: skip


def shell(words: Sequence[str]) -> str:
    """A command as a user types it."""
    return "kovqa " + " ".join(map(shlex.quote, words))


def run(words: Sequence[str]) -> None:
    """Run one command as its own process, as a shell would.

    Raises:
        KovqaError: it failed; its own message stands above.
    """
    process = subprocess.run(
        [sys.executable, "-P", "-m", "kovqa_cli", *words],
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        check=False,
    )
    if process.returncode:
        error = KovqaError(f"the demo stopped at: {shell(words)}", "see the line above")
        error.exit_code = process.returncode  # type: ignore[misc]  # pass the command's own meaning on
        raise error


def sheet(folder: Path) -> Path:
    """The contact sheet of held-out pictures: wrong answers first in doubt, right ones beside them."""
    index = open_index(folder / "index")
    given = [json.loads(line) for line in read_text(folder / "predictions.jsonl").splitlines()]
    answers = {row["id"]: row for row in given}
    rows = []
    for example in Split(folder / "index" / "test.jsonl"):
        row = answers[example.id]
        expected = max(example.answers, key=lambda answer: example.answers[answer])
        rows.append(
            Row(index.images / example.image, example.question, row["answer"], expected, row["score"])
        )
    right = [row for row in rows if row.answer == row.expected]
    wrong = [row for row in rows if row.answer != row.expected]
    share = len(right) / max(1, len(rows))
    step = max(1, len(right) // _SHOWN_RIGHT)
    path = folder / "contact_sheet.png"
    title = f"kovqa demo · 처음 보는 그림과 질문 {len(rows):,}개 중 {share:.1%} 정답"
    contact_sheet([*right[::step][:_SHOWN_RIGHT], *wrong[:_SHOWN_WRONG]], path, title)
    return path
