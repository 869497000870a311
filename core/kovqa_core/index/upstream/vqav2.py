"""BEiT-3's files of VQAv2 (docs/sources/beit3.md, B24 to B27).

Its habits: classes are counted over training and validation; scores go to raw answers that happen to
be spelled like a class; rows follow the pictures that are there. The original shuffles pictures
without a seed before it cuts validation in two; here a hash decides, so that it can be repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kovqa_core.data.answers import soft_score
from kovqa_core.data.json_stream import records
from kovqa_core.index.hash_split import place
from kovqa_core.index.sources.vqav2 import MIN_COUNT, PARTS, files, joined, normal, picture, present
from kovqa_core.index.upstream import Encode
from kovqa_core.index.upstream.rows import first_come, write_labels, write_rows

_REST = 1000  # validation pictures that are never trained on
Row = dict[str, Any]

NEEDS_TOKENIZER = True


def write(root: Path, images: Path, folder: Path, encode: Encode) -> None:
    """Write `vqa.{train,val,test,test-dev,trainable_val,rest_val}.jsonl` and `answer2label.txt`."""
    labels = first_come(_most_given(root), MIN_COUNT)
    write_labels(folder, labels)
    for part, split in PARTS.items():
        if split in ("train", "val") or files(root, part)[0].is_file():
            rows = _rows(root, images, part, labels, encode)
            if split != "val":
                write_rows(folder / f"vqa.{split}.jsonl", rows)
                continue
            found = list(rows)
            rest = _rest({row["image_path"] for row in found})
            write_rows(folder / "vqa.val.jsonl", found)
            write_rows(folder / "vqa.rest_val.jsonl", (r for r in found if r["image_path"] in rest))
            write_rows(folder / "vqa.trainable_val.jsonl", (r for r in found if r["image_path"] not in rest))


def _most_given(root: Path) -> Iterator[str]:
    for part in ("train2014", "val2014"):
        for row in records(files(root, part)[1], "annotations", ("multiple_choice_answer",)):
            yield normal(row["multiple_choice_answer"])


def _rest(pictures: set[str]) -> set[str]:
    return set(sorted(pictures, key=lambda path: place("rest_val", path))[:_REST])


def _rows(root: Path, images: Path, part: str, labels: dict[str, int], encode: Encode) -> Iterator[Row]:
    by_picture: dict[str, list[Row]] = {path: [] for path in sorted(present(images, part))}
    for question, annotation in joined(root, part):
        path = picture(part, question["image_id"])
        given = Counter(answer["answer"] for answer in annotation.get("answers", ()))
        known = {labels[answer]: soft_score(n) for answer, n in given.items() if answer in labels}
        if path in by_picture and (known or part.startswith("test")):
            by_picture[path].append(
                {
                    "image_path": path,
                    "text_segment": encode(question["question"]),
                    "labels": list(known),
                    "scores": list(known.values()),
                    "qid": question["question_id"],
                }
            )
    for rows in by_picture.values():
        yield from rows
