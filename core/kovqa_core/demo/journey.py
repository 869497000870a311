"""The demo's journey: the commands a user would type, one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.demo.dataset import write_demo_dataset, write_demo_table
from kovqa_core.demo.sheet import SheetRow, draw_contact_sheet
from kovqa_core.errors import KovqaError
from kovqa_core.files import read_text
from kovqa_core.index.reader import open_index
from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.missing_packages import missing_package_error, missing_packages
from kovqa_core.progress import OnProgress, ignore_progress
from kovqa_core.system_support import require_launching

HELD_OUT_IMAGES = 400  # images nobody learns from
NEW_IMAGES = 20  # images of the table without answers
_PACKAGES = ("torch", "safetensors", "sentencepiece", "tensorboardX")  # by which it trains
# On the contact sheet: answers and captions, right and wrong.
_RIGHT_ANSWERS, _WRONG_ANSWERS, _RIGHT_CAPTIONS, _WRONG_CAPTIONS = 10, 4, 8, 2


@dataclass(frozen=True)
class DemoStep:
    """One command of the journey: what it does, in words, and its arguments after `kovqa`."""

    title: Message
    arguments: tuple[str, ...]


def draw_demo_data(folder: Path, images: int, seed: int, on_progress: OnProgress = ignore_progress) -> None:
    """Draw the scenes and write their questions, in AI-Hub 104 layout, into `folder`/raw.

    Raises:
        MachineError: what comes after cannot work here: a package is missing, or this system trains nothing.
    """
    require_launching()
    if missing := missing_packages(_PACKAGES):
        raise missing_package_error(missing)
    write_demo_dataset(folder / "raw", images, HELD_OUT_IMAGES, seed, on_progress)


def draw_demo_table(
    folder: Path, images: int, seed: int, on_progress: OnProgress = ignore_progress
) -> tuple[Path, Path]:
    """Draw scenes and write two tables: of questions with their answers, and of questions about a few new images."""
    return write_demo_table(folder, images, NEW_IMAGES, seed, on_progress)


def demo_steps(folder: Path, sets: Sequence[str] = ()) -> list[DemoStep]:
    """The commands of the journey, in order.

    Args:
        folder: of everything; the scenes are drawn.
        sets: `a.b=c` texts for both trainings.
    """
    return [*_answer_steps(folder, sets), *_caption_steps(folder, sets)]


def _answer_steps(folder: Path, sets: Sequence[str]) -> list[DemoStep]:
    raw, index, tokenizer, run = (folder / name for name in ("raw", "index", "tokenizer.model", "run"))
    test, predictions = index / "test.jsonl", folder / "predictions.jsonl"
    return [
        _step(
            message("demo.tokenizer", "A Korean tokenizer, from the training questions"),
            "tokenizer", "train", raw / "text.txt", "-o", tokenizer, "--vocab-size", "500",
        ),
        _step(
            message("demo.index", "An index of the raw data"),
            "index", "aihub", "--root", raw, "-o", index,
        ),
        _step(
            message("demo.train", "A small BEiT-3, from scratch"),
            "train", "-r", "tiny", "-p", "cpu", "--data", index, "--tokenizer", tokenizer, "-o", run,
            "--resume", *_set_options(sets),
        ),
        _step(
            message("demo.predict", "Answers to questions it has never read, about images it has never seen"),
            "predict", "--model", run, "--input", test, "-o", predictions,
        ),
        _step(
            message(
                "demo.evaluate",
                "How many are right, by type of question, beside always giving the most frequent answer",
            ),
            "evaluate", predictions, "--index", test, "--report", folder / "report.html",
        ),
        _step(
            message("demo.one-answer", "One question about one image"),
            "predict", "--model", run, "-i", _example_image(folder),
            "--question", "그림에 도형이 모두 몇 개 있나요?",
        ),
    ]  # fmt: skip


def _caption_steps(folder: Path, sets: Sequence[str]) -> list[DemoStep]:
    raw, index, run = folder / "raw", folder / "index-captions", folder / "run-captions"
    tokenizer, predictions = folder / "tokenizer-captions.model", folder / "captions.jsonl"
    return [
        _step(
            message("demo.caption-tokenizer", "The same for captions: a tokenizer"),
            "tokenizer", "train", raw / "captions.txt", "-o", tokenizer, "--vocab-size", "300",
        ),
        _step(
            message("demo.caption-index", "... an index"),
            "index", "table", "--root", raw / "captions.jsonl", "--images", raw / "images", "-o", index,
        ),
        _step(
            message("demo.caption-train", "... a small BEiT-3 that says what it sees"),
            "train", "-r", "tiny-caption", "-p", "cpu", "--data", index, "--tokenizer", tokenizer, "-o", run,
            "--resume", *_set_options(sets),
        ),
        _step(
            message("demo.caption", "... captions of images it has never seen"),
            "caption", "--model", run, "--input", index / "test.jsonl", "-o", predictions,
        ),
        _step(
            message("demo.caption-evaluate", "... and how good they are"),
            "evaluate", predictions, "--index", index / "test.jsonl",
        ),
        _step(
            message("demo.one-caption", "One caption of one image"),
            "caption", "--model", run, "-i", _example_image(folder),
        ),
    ]  # fmt: skip


def _step(title: Message, *arguments: str | Path) -> DemoStep:
    return DemoStep(title, tuple(map(str, arguments)))


def _set_options(sets: Sequence[str]) -> list[str]:
    return [word for assignment in sets for word in ("--set", assignment)]


def _example_image(folder: Path) -> Path:
    """The last image drawn: a held-out one."""
    images = folder / "raw" / "images"
    return max(images.glob("*.png"), default=images)


def shell_line(arguments: Sequence[str]) -> str:
    """A command as a user types it."""
    return "kovqa " + " ".join(map(shell_quote, arguments))


def run_command(arguments: Sequence[str]) -> None:
    """Run one command as its own process, as a shell would.

    Raises:
        KovqaError: it failed; its own message stands above.
    """
    process = subprocess.run(
        # -P and PYTHONSAFEPATH: a file `json.py` in the user's folder must not be imported instead of Python's own.
        [sys.executable, "-P", "-m", "kovqa_cli", *arguments],
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        check=False,
    )
    if process.returncode:
        error = KovqaError(
            message("demo.stopped", "the demo stopped at: {command}", command=shell_line(arguments)),
            message("demo.stopped.hint", "see the line above"),
        )
        error.exit_code = process.returncode  # type: ignore[misc]  # pass the command's own meaning on
        raise error


def write_contact_sheet(folder: Path) -> Path:
    """The contact sheet of held-out images: right answers and captions, and wrong ones."""
    answers = _read_sheet_rows(folder, "index", "predictions.jsonl", "answer")
    captions = _read_sheet_rows(folder, "index-captions", "captions.jsonl", "caption")
    path = folder / "contact_sheet.png"
    fractions = [sum(row.right for row in rows) / max(1, len(rows)) for rows in (answers, captions)]
    # Korean in every language: the sheet shows what a Korean model says about Korean questions.
    title = (
        f"kovqa demo · 처음 보는 그림과 질문 {len(answers):,}개 중 {fractions[0]:.1%} 정답, "
        f"그림 {len(captions):,}장 중 {fractions[1]:.1%} 바르게 설명"
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


def _read_sheet_rows(folder: Path, index_name: str, predictions: str, field: str) -> list[SheetRow]:
    """What was predicted for every held-out image, and what is right."""
    index = open_index(folder / index_name)
    lines = [parse_json(line) for line in read_text(folder / predictions).splitlines()]
    predicted = {line["id"]: line for line in lines}
    rows = []
    for example in index.split("test"):
        truths = example.captions or sorted(example.answers, key=lambda a: -example.answers[a])
        text, score = predicted[example.id][field], predicted[example.id]["score"]
        # Of several true captions the one that was predicted, so that right is right.
        expected = text if text in truths else truths[0]
        question = example.question or "무엇이 있나요?"
        rows.append(SheetRow(index.images / example.image, question, text, expected, score))
    return rows


def _choose_sheet_rows(rows: Sequence[SheetRow], right_count: int, wrong_count: int) -> list[SheetRow]:
    """So many right rows, evenly spread, then so many wrong ones, the first."""
    right, wrong = [row for row in rows if row.right], [row for row in rows if not row.right]
    return [*right[:: max(1, len(right) // right_count)][:right_count], *wrong[:wrong_count]]
