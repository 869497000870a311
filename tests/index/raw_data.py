"""Raw data sets for tests, made where a test needs them; images are empty files, for an index only looks at names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from kovqa_core.data.example import Example
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import open_index
from kovqa_core.index.report import IndexReport
from kovqa_core.index.shards import SourceOptions


def index(root: Path, source: str, **options: Any) -> tuple[dict[str, list[Example]], IndexReport]:
    """Examples by split, and the report; the raw data set is in `root` or is `root`."""
    folder = (root if root.is_dir() else root.parent).parent / "index"
    report = build_index(source, root, None, folder, options=SourceOptions(**options))
    opened = open_index(folder)
    return {split: list(opened.split(split)) for split in report.counts.rows}, report


def left_out_counts(report: IndexReport) -> dict[str, int]:
    """Reason -> rows left out."""
    return {each.reason: each.count for each in report.counts.left_out}


def left_out_rows(report: IndexReport) -> dict[str, list[str]]:
    """Reason -> the first rows left out."""
    return {each.reason: list(each.first_rows) for each in report.counts.left_out}


def touch(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8"
    )


class Row(NamedTuple):
    """A question of an AI-Hub tree, as its three label files have it."""

    id: Any
    image_id: Any
    answer: Any
    question: Any = "무엇인가요?"
    file: Any = None  # name of the image file; default: the image id's


def image_name(row: Row) -> Any:
    return f"{row.image_id}.jpg" if row.file is None else row.file


def write_labels(
    root: Path,
    rows: Iterable[Row],
    split: str = "train",
    category: str = "교통",
    level: str = "상",
    encoding: str = "utf-8",
) -> Path:
    """Write the label files of one level folder; returns the folder."""
    top, middle = ("train_labels", "train") if split == "train" else ("valid_labels", "validate")
    folder = root / "labels" / top / category / f"{level}_{middle}_{category}"
    folder.mkdir(parents=True)
    rows = list(rows)
    files = {row.image_id: {"image_id": row.image_id, "image": image_name(row)} for row in rows}
    write_table(folder / "images.json", {"images": list(files.values())}, encoding)
    write_table(
        folder / "question.json",
        {"questions": [{"question_id": r.id, "image_id": r.image_id, "question": r.question} for r in rows]},
        encoding,
    )
    write_table(
        folder / "annotation.json",
        {
            "annotations": [
                {"question_id": r.id, "image_id": r.image_id, "multiple_choice_answer": r.answer}
                for r in rows
            ]
        },
        encoding,
    )
    return folder


def write_table(path: Path, content: object, encoding: str = "utf-8") -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)


def write_images(root: Path, names: Iterable[str]) -> Path:
    """Empty image files; returns their folder."""
    folder = root / "images"
    touch(folder, names)
    folder.mkdir(exist_ok=True)
    return folder
