"""What the originals' index files have in common: rows in ASCII JSON, classes by first occurrence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

EncodeText = Callable[[str], list[int]]  # token ids of a text, without `<s>` and `</s>`
UpstreamRow = dict[str, object]  # column -> JSON value


def write_json_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object per line."""
    with path.open("w", encoding="ascii") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def label_by_first_seen(answers: Iterable[str], min_count: int) -> dict[str, int]:
    """Answers seen often enough -> label, in the order they were first seen in."""
    frequent = (answer for answer, n in Counter(answers).items() if n >= min_count)
    return {answer: label for label, answer in enumerate(frequent)}


def write_answer2label(folder: Path, labels: Mapping[str, int]) -> None:
    """Write `answer2label.txt`."""
    rows = ({"answer": answer, "label": label} for answer, label in labels.items())
    write_json_rows(folder / "answer2label.txt", rows)
