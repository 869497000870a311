"""The demo's journey: the commands a user would type, one after the other."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kovqa_core.demo.dataset import write_demo_dataset
from kovqa_core.demo.sheet import SheetRow, draw_contact_sheet
from kovqa_core.errors import KovqaError
from kovqa_core.files import read_text
from kovqa_core.index.reader import open_index

HELD_OUT_IMAGES = 400  # pictures nobody learns from
# On the contact sheet: answers and captions, right and wrong.
_RIGHT_ANSWERS, _WRONG_ANSWERS, _RIGHT_CAPTIONS, _WRONG_CAPTIONS = 10, 4, 8, 2


def draw_demo_data(
    folder: Path, pictures: int, seed: int, progress: Callable[[int, int], None] | None = None
) -> None:
    """Draw the scenes and write their questions, in AI-Hub 104 layout, into `folder`/raw."""
    write_demo_dataset(folder / "raw", pictures, HELD_OUT_IMAGES, seed, progress)


def demo_commands(folder: Path, sets: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """(what it does, the words of the command), in order."""
    raw, index, tokenizer, run = (folder / name for name in ("raw", "index", "tokenizer.model", "run"))
    example = next(iter(sorted((raw / "images").glob("*.png"), reverse=True)), raw)
    test, predictions = index / "test.jsonl", folder / "predictions.jsonl"
    talker, said = folder / "run-captions", folder / "captions.jsonl"
    captions, words = folder / "index-captions", folder / "tokenizer-captions.model"
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
         ["evaluate", str(predictions), "--index", str(test), "--report", str(folder / "report.html")]),
        ("One question about one picture",
         ["predict", "--model", str(run), "-i", str(example), "--question", "그림에 도형이 모두 몇 개 있나요?"]),
        ("The same for captions: a tokenizer",
         ["tokenizer", "train", str(raw / "captions.txt"), "-o", str(words), "--vocab-size", "300"]),
        ("... an index",
         ["index", "table", "--root", str(raw / "captions.jsonl"), "--images", str(raw / "images"),
          "-o", str(captions)]),
        ("... a small BEiT-3 that says what it sees",
         ["train", "-r", "tiny-caption", "-p", "cpu", "--data", str(captions), "--tokenizer", str(words),
          "-o", str(talker), "--resume", *options]),
        ("... captions of pictures it has never seen",
         ["caption", "--model", str(talker), "--input", str(captions / "test.jsonl"), "-o", str(said)]),
        ("... and how good they are",
         ["evaluate", str(said), "--index", str(captions / "test.jsonl")]),
        ("One caption of one picture",
         ["caption", "--model", str(talker), "-i", str(example)]),
    ]  # fmt: skip


def shell_line(words: Sequence[str]) -> str:
    """A command as a user types it."""
    return "kovqa " + " ".join(map(shlex.quote, words))


def run_command(words: Sequence[str]) -> None:
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
        error = KovqaError(f"the demo stopped at: {shell_line(words)}", "see the line above")
        error.exit_code = process.returncode  # type: ignore[misc]  # pass the command's own meaning on
        raise error


def write_contact_sheet(folder: Path) -> Path:
    """The contact sheet of held-out pictures: right answers and captions, and the wrong ones."""
    answers = _read_sheet_rows(folder, "index", "predictions.jsonl", "answer")
    captions = _read_sheet_rows(folder, "index-captions", "captions.jsonl", "caption")
    path = folder / "contact_sheet.png"
    shares = [sum(row.right for row in rows) / max(1, len(rows)) for rows in (answers, captions)]
    title = (
        f"kovqa demo · 처음 보는 그림과 질문 {len(answers):,}개 중 {shares[0]:.1%} 정답, "
        f"그림 {len(captions):,}장 중 {shares[1]:.1%} 바르게 설명"
    )
    draw_contact_sheet(
        [
            *_choose_sheet_rows(answers, _RIGHT_ANSWERS, _WRONG_ANSWERS),
            *_choose_sheet_rows(captions, _RIGHT_CAPTIONS, _WRONG_CAPTIONS),
        ],
        path,
        title,
    )
    return path


def _read_sheet_rows(folder: Path, index: str, predictions: str, field: str) -> list[SheetRow]:
    """What was said about every held-out picture, and what should have been."""
    opened = open_index(folder / index)
    given = [json.loads(line) for line in read_text(folder / predictions).splitlines()]
    said = {row["id"]: row for row in given}
    rows = []
    for example in opened.split("test"):
        right = example.captions or sorted(example.answers, key=lambda a: -example.answers[a])
        text = said[example.id][field]
        expected = text if text in right else right[0]
        question = example.question or "무엇이 있나요?"
        rows.append(
            SheetRow(opened.images / example.image, question, text, expected, said[example.id]["score"])
        )
    return rows


def _choose_sheet_rows(rows: Sequence[SheetRow], right: int, wrong: int) -> list[SheetRow]:
    good, bad = [row for row in rows if row.right], [row for row in rows if not row.right]
    return [*good[:: max(1, len(good) // right)][:right], *bad[:wrong]]
