"""KoBEiT3's files of AI-Hub 104, its mistakes included (docs/sources/beit3.md, B30 and B31).

Classes are counted over all splits. An answer's score is 0.2 the first time it is seen in a split,
0.4 the second … 1.0 from the fifth on. The publisher's validation part is cut in three in the
order of its questions, whatever pictures they ask about. `missing_images.txt`, where it lies in the
data's folder, is compared with line ends, so that only its last line without one has an effect.
The original takes categories in the order the file system gives; here they are sorted.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kovqa_core.data.json_stream import records
from kovqa_core.errors import DataError
from kovqa_core.files import nfc, read_text
from kovqa_core.index.sources.aihub import is_validation, label_folders
from kovqa_core.index.upstream import Encode
from kovqa_core.index.upstream.rows import first_come, write_labels, write_rows

_OFTEN = 5  # times an answer must be seen to become a class
_MISSING = "missing_images.txt"


class _Row(NamedTuple):
    picture: str
    question: str
    answer: str
    id: str


NEEDS_TOKENIZER = True


def write(root: Path, images: Path, folder: Path, encode: Encode, categories: Sequence[str] = ()) -> None:
    """Write `vqa.{train,val,test}.json` and `answer2label.txt`; `categories` in another order than theirs."""
    splits = _splits(root, categories)
    labels = first_come((row.answer for rows in splits.values() for row in rows), _OFTEN)
    write_labels(folder, labels)
    missing = set(io.StringIO(read_text(root / _MISSING))) if (root / _MISSING).is_file() else set()
    for split, rows in splits.items():
        there = [row for row in rows if row.picture not in missing]
        write_rows(folder / f"vqa.{split}.json", _lines(there, labels, encode, split == "test"))


def _splits(root: Path, categories: Sequence[str]) -> dict[str, list[_Row]]:
    splits: dict[str, list[_Row]] = {"train": [], "val": [], "test": []}
    order = {name: place for place, name in enumerate(categories)}

    def by_category(folder: Path) -> tuple[bool, int]:
        return is_validation(folder), order.get(nfc(folder.parent.name), 0)

    for folder in sorted(label_folders(root), key=by_category):
        rows = list(_read(folder))
        n = len(rows)
        first, second = (n // 3, 2 * n // 3) if is_validation(folder) else (n, n)
        for split, part in zip(splits, (rows[:first], rows[first:second], rows[second:]), strict=True):
            splits[split] += part
    return splits


def _read(folder: Path) -> Iterator[_Row]:
    pictures = {
        row["image_id"]: row["image"]
        for row in records(folder / "images.json", "images", ("image_id", "image"))
    }
    answers = {
        row["question_id"]: row["multiple_choice_answer"]
        for row in records(
            folder / "annotation.json", "annotations", ("question_id", "multiple_choice_answer")
        )
    }
    for row in records(folder / "question.json", "questions", ("question_id", "image_id", "question")):
        id, image_id = row["question_id"], row["image_id"]
        if id not in answers or image_id not in pictures:
            raise DataError(
                f"{folder}: question {id} has no answer or no picture", "fetch or unpack it again"
            )
        yield _Row(pictures[image_id], row["question"], answers[id], id)


def _lines(
    rows: Sequence[_Row], labels: dict[str, int], encode: Encode, test: bool
) -> Iterator[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for row in rows:
        line = {"image_path": row.picture, "text_segment": encode(row.question)}
        if test:
            yield {**line, "labels": "", "scores": "", "qid": row.id}
        elif row.answer in labels:
            seen[row.answer] += 1
            score = min(seen[row.answer], 5) / 5
            yield {**line, "labels": [labels[row.answer]], "scores": [score], "qid": row.id}
