"""A small AI-Hub tree: label files and empty pictures, made where a test wants them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A question of the tree, as its three label files tell it."""

    id: Any
    image_id: Any
    answer: Any
    question: Any = "무엇인가요?"
    file: Any = None  # name of the picture; default: the image id's


def picture_name(row: Row) -> Any:
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
    files = {row.image_id: {"image_id": row.image_id, "image": picture_name(row)} for row in rows}
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


def write_pictures(root: Path, names: Iterable[str]) -> Path:
    """Empty picture files, for an index looks at names only; returns their folder."""
    folder = root / "images"
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folder.mkdir(exist_ok=True)
    return folder
