"""The index of a published benchmark as small as a test needs it, without the set's own files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from kovqa_core.data.example import Example


def write_benchmark_index(folder: Path, source: str, rows: Sequence[Example], images: Path) -> Path:
    """An index folder that says that it is of a set; its split test.

    Args:
        folder: is made.
        source: name of the set.
        rows: of its split.
        images: the folder that their image paths start from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts = {
        "rows": {"test": len(rows)},
        "pictures": {},
        "answers": 0,
        "min_count": 1,
        "fingerprint": "f" * 64,
    }
    report = {"schema": 1, "source": source, "images": os.path.relpath(images, folder), **counts}
    (folder / "index.json").write_text(json.dumps(report), "utf-8")
    (folder / "answers.txt").touch()
    split = folder / "test.jsonl"
    split.write_text("".join(row.line() + "\n" for row in rows), "utf-8")
    return split
