"""What the names on the pages stand for: small data, finished runs and tables, made once and linked into each folder."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from kovqa_core.settings.resolve import find_settings

from tests.conftest import SMALL, Small, sets
from tests.journeys.test_contest import write_contest

CAPTIONER = (*SMALL, "optim.steps=2", "eval.every_steps=2", "model.caption.num_beams=1")


def make_workspace(folder: Path, small: Small, trained: Path, base: Path, kovqa: Callable[..., None]) -> None:
    """Fill a folder with all that the pages name.

    Args:
        folder: an empty one.
        small: data set, index and tokenizer.
        trained: a finished run on it.
        base: a tiny vision language model.
        kovqa: runs a command in the folder; it may not fail.
    """
    shutil.copytree(small.root, folder / "raw")
    for name in ("data/aihub", "data/index"):
        kovqa("index", "aihub", "--root", "raw", "-o", name)
    for name in ("A", "B", "dacon"):
        shutil.copytree(trained, folder / "runs" / name)
    shutil.copytree(base, folder / "base")
    shutil.copy(small.tokenizer, folder / "ko.model")
    write_contest(folder / "open", train=16, test=4)
    (folder / "drive" / "MyDrive").mkdir(parents=True)
    shutil.make_archive(str(folder / "drive" / "MyDrive" / "open"), "zip", folder / "open")
    image = next((folder / "raw" / "images").iterdir())
    for name in ("x.png", "zebra.jpg", "사진.jpg", "a.jpg", "b.jpg"):
        shutil.copy(image, folder / name)
    shutil.copy(folder / "data" / "index" / "val.jsonl", folder / "T.jsonl")
    for table, predictions in (
        ("data/index/test.jsonl", "answers.jsonl"),
        ("T.jsonl", "B.jsonl"),
        ("T.jsonl", "C.jsonl"),
    ):
        kovqa("predict", "--model", "runs/A", "--input", table, "-o", predictions)
    words = ["train", "-r", "tiny-caption", "-p", "cpu", "--data", small.captions, "--tokenizer", "ko.model"]
    kovqa(*words, *sets(*CAPTIONER), "-o", "runs/captions")
    write_tables(folder, image.name)
    kovqa("index", "table", "--root", "choices.jsonl", "--images", "raw/images", "-o", "choices")
    shutil.copy(folder / "choices" / "val.jsonl", folder / "val.jsonl")


def write_tables(folder: Path, image: str) -> None:
    """Tables of a user's own: with columns in Korean, with choices, a contest's sample, a list of answers."""
    with (folder / "my.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["사진", "질문", "정답"], [image, "무엇이 보이나요?", "원"]])
    choices = [
        {"id": str(n), "image": image, "question": "무슨 색인가요?", "choices": ["빨간색", "파란색", "알 수 없음"],
         "answer": ("빨간색", "알 수 없음")[n % 2], "split": ("train", "val")[n > 7]}
        for n in range(12)
    ]  # fmt: skip
    write_lines(folder / "choices.jsonl", choices)
    with (folder / "test.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(
            [
                ["id", "image", "question", "choices"],
                ["T1", image, "무슨 색인가요?", "빨간색|파란색|알 수 없음"],
            ]
        )
    (folder / "sample.csv").write_text("id,answer\nT1,A\n", "utf-8")
    (folder / "answers.txt").write_text("빨간색\n파란색\n", "utf-8")
    recipe = find_settings("recipes", "tiny").read_text("utf-8")
    recipe = recipe.replace("max_text: 32", "max_text: 32\n  tokenizer: ko.model")
    (folder / "my.yaml").write_text(f"{recipe}data: {{index: data/aihub}}\n", "utf-8")


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def link_workspace(workspace: Path, folder: Path, names: Sequence[str] | None = None) -> None:
    """Some of the workspace, or all, as links to its files: kovqa replaces files whole, and changes none in place."""
    link: Callable[[str, str], object] = os.link
    for path in workspace.iterdir():
        if names is None or path.name in names:
            if path.is_dir():
                shutil.copytree(path, folder / path.name, copy_function=link)
            else:
                link(str(path), str(folder / path.name))
