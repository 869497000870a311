"""Data files as people have them, each from its file to a score: index, train, predict, evaluate."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.data.example import Example
from kovqa_core.index.reader import open_index
from typer.testing import CliRunner

from kovqa_cli.main import app
from tests.conftest import Kovqa, Small, training

TRAIN, VAL = 48, 16  # rows
COLUMNS = ("id", "image", "question", "answer", "split")


def examples(small: Small) -> dict[str, list[Example]]:
    """The rows that every file holds."""
    index = open_index(small.index)
    return {
        split: [index.split(split)[n] for n in range(rows)]
        for split, rows in (("train", TRAIN), ("val", VAL))
    }


def answer(example: Example) -> str:
    return next(iter(example.answers))


def table_rows(small: Small) -> list[dict[str, str]]:
    return [
        dict(zip(COLUMNS, (e.id, e.image, e.question, answer(e), split), strict=True))
        for split, rows in examples(small).items()
        for e in rows
    ]


def copy_images(small: Small, folder: Path, rows: list[Example], names: Callable[[str], str] = str) -> None:
    for image in {each.image for each in rows}:
        target = folder / names(image)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(small.root / "images" / image, target)


def write_dacon(small: Small, root: Path) -> list[object]:
    """open.zip, unpacked: three CSV files; image names without suffix; the test's answers are not there."""
    rows = examples(small)
    for split, part, columns in (
        ("train", "train", ["ID", "image_id", "question", "answer"]),
        ("val", "test", ["ID", "image_id", "question"]),
    ):
        copy_images(small, root / "image" / part, rows[split], flat_name)
        with (root / f"{part}.csv").open("w", encoding="utf-8", newline="") as stream:
            lines = [[e.id, Path(flat_name(e.image)).stem, e.question, answer(e)] for e in rows[split]]
            csv.writer(stream).writerows([columns, *(line[: len(columns)] for line in lines)])
    sample = "".join(f"{e.id},0\n" for e in rows["val"])
    (root / "sample_submission.csv").write_text(f"ID,answer\n{sample}", "utf-8")
    return ["dacon", "--root", root]


def flat_name(image: str) -> str:
    return image.replace("/", "_")


def write_nia(small: Small, root: Path) -> list[object]:
    """AI-Hub 71357: one JSON file a split, questions A and B inside each image's record."""
    for split, file in (("train", "train"), ("val", "valid"), ("val", "test")):
        rows = examples(small)[split]
        copy_images(small, root / "image", rows, flat_name)
        records = []
        for image, group in groupby(sorted(rows, key=lambda e: e.image), key=lambda e: e.image):
            a, b = (list(group) * 2)[:2]
            questions = [
                {
                    "question_id": f"{file}_{letter}_{each.id}",
                    "question_ko": each.question,
                    "answer_ko": answer(each),
                    "ans_source": "triple",
                }
                for letter, each in (("A", a), ("B", b))
            ]
            records.append({"IMAGE_NAME": flat_name(image), "questions": questions})
        (root / f"{file}.json").write_text(
            json.dumps({"info": {"split": file}, "annotations": records}, ensure_ascii=False), "utf-8"
        )
    return ["nia", "--root", root]


def write_kollava(small: Small, root: Path) -> list[object]:
    """KoLLaVA's instructions: a list of conversations, several turns about one image."""
    rows = [each for part in examples(small).values() for each in part]
    copy_images(small, root, rows)
    conversations = []
    for image, group in groupby(sorted(rows, key=lambda e: e.image), key=lambda e: e.image):
        turns = [
            {"from": speaker, "value": text}
            for each in group
            for speaker, text in (("human", each.question), ("gpt", answer(each)))
        ]
        turns[0]["value"] = f"<image>\n{turns[0]['value']}"
        conversations.append({"id": image, "image": image, "conversations": turns})
    (root / "kollava.json").write_text(json.dumps(conversations, ensure_ascii=False), "utf-8")
    return ["table", "--root", root / "kollava.json"]


def write_parquet(small: Small, root: Path) -> list[object]:
    """A data set of the hub: images inside the file, a list of answers a row."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [
        {
            **{name: row[name] for name in ("id", "question", "split")},
            "image": {"bytes": (small.root / "images" / row["image"]).read_bytes(), "path": row["image"]},
            "answers": [row["answer"]],
        }
        for row in table_rows(small)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), root / "자료.parquet")
    return ["table", "--root", root / "자료.parquet"]


def write_xlsx(small: Small, root: Path) -> list[object]:
    import openpyxl

    book = openpyxl.Workbook()
    sheet: Any = book.active
    for line in [COLUMNS, *(tuple(row.values()) for row in table_rows(small))]:
        sheet.append(line)
    book.save(root / "자료.xlsx")
    return ["table", "--root", root / "자료.xlsx", "--images", small.root / "images"]


def write_utf16(small: Small, root: Path) -> list[object]:
    """What Excel calls Unicode text: UTF-16 with tabs, here under a .csv name."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\r\n")
    writer.writerows([COLUMNS, *(tuple(row.values()) for row in table_rows(small))])
    (root / "자료.csv").write_bytes(text.getvalue().encode("utf-16"))
    return ["table", "--root", root / "자료.csv", "--images", small.root / "images"]


FILES: dict[str, Callable[[Small, Path], list[object]]] = {
    "dacon": write_dacon,
    "nia": write_nia,
    "kollava": write_kollava,
    "parquet": write_parquet,
    "xlsx": write_xlsx,
    "utf-16": write_utf16,
}


def scored_split(index: Path) -> Path:
    """The index's rows with answers that nobody trained on."""
    return index / "val.jsonl"


@pytest.mark.parametrize("kind", FILES)
def test_data_files_are_indexed_answered_and_scored(
    small: Small, trained: Path, tmp_path: Path, kind: str
) -> None:
    """Within one process, by a model that is there."""
    root, index, predictions = tmp_path / "자료", tmp_path / "index", tmp_path / "predictions.jsonl"
    root.mkdir()

    def kovqa(*words: object) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    kovqa("index", *FILES[kind](small, root), "-o", index, "-q")
    opened = open_index(index)
    rows = sum(len(opened.split(split)) for split in ("train", "val", "test"))
    assert rows >= TRAIN + VAL if kind != "nia" else rows > 0
    assert not opened.report.counts.left_out
    split = scored_split(index)
    kovqa("predict", "--model", trained, "--input", split, "-o", predictions, "-q")
    told = json.loads(kovqa("evaluate", predictions, "--index", split, "--json"))
    assert told["all"]["rows"] == len(opened.split("val"))


@pytest.mark.soak
@pytest.mark.parametrize("kind", FILES)
def test_data_files_are_trained_on(kovqa: Kovqa, small: Small, tmp_path: Path, kind: str) -> None:
    """The whole way, each command a process of its own."""
    root, index, run = tmp_path / "자료", tmp_path / "index", tmp_path / "run"
    root.mkdir()
    words = training(small, "optim.steps=6", "eval.every_steps=6")
    words[words.index("--data") + 1] = index
    split, predictions = scored_split(index), tmp_path / "predictions.jsonl"
    for command in (
        ["index", *FILES[kind](small, root), "-o", index],
        [*words, "-o", run],
        ["predict", "--model", run, "--input", split, "-o", predictions],
        ["evaluate", predictions, "--index", split, "--json"],
    ):
        done = kovqa(*command)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["all"]["rows"] == len(open_index(index).split("val"))
