"""KoBEiT3's files of AI-Hub 104, its mistakes included (docs/sources/beit3.md, B30 and B31).

Classes are counted over all splits. An answer's score is 0.2 the first time it is seen in a split,
0.4 the second … 1.0 from the fifth on. Each folder of the publisher's validation data is cut into three in
the order of its questions, whatever images they are about. The lines of `missing_images.txt`, if the data's
folder has one, are compared with their line ends, so that only a last line without one has an effect.
The original takes categories in the order the file system gives; here they are sorted.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.errors import DataError
from kovqa_core.files import read_text, to_nfc
from kovqa_core.index.folder_names import publisher_split
from kovqa_core.index.sources.aihub import label_folders
from kovqa_core.index.upstream.rows import (
    EncodeText,
    UpstreamRow,
    label_by_first_seen,
    write_answer2label,
    write_json_rows,
)
from kovqa_core.messages import message

_MIN_CLASS_COUNT = 5  # times an answer must be seen to become a class
_MISSING_IMAGES_FILE = "missing_images.txt"
_IMAGE_KEYS = ("image_id", "image")
_ANSWER_KEYS = ("question_id", "multiple_choice_answer")
_QUESTION_KEYS = ("question_id", "image_id", "question")


class _LabelRow(NamedTuple):
    image: str
    question: str
    answer: str
    id: str


NEEDS_TOKENIZER = True


def write_upstream_files(
    root: Path, images: Path, folder: Path, encode: EncodeText, categories: Sequence[str] = ()
) -> None:
    """Write `vqa.{train,val,test}.json` and `answer2label.txt`; `categories` come in this order, not sorted."""
    splits = _read_splits(root, categories)
    labels = label_by_first_seen((row.answer for rows in splits.values() for row in rows), _MIN_CLASS_COUNT)
    write_answer2label(folder, labels)
    missing = (
        # Iterating keeps the line ends, as the original does: "a.jpg\n" equals no name (docs/sources/beit3.md, B31).
        set(io.StringIO(read_text(root / _MISSING_IMAGES_FILE)))
        if (root / _MISSING_IMAGES_FILE).is_file()
        else set()
    )
    for split, rows in splits.items():
        present = [row for row in rows if row.image not in missing]
        lines = _kobeit3_lines(present, labels, encode, is_test=split == "test")
        write_json_rows(folder / f"vqa.{split}.json", lines)


def _read_splits(root: Path, categories: Sequence[str]) -> dict[str, list[_LabelRow]]:
    splits: dict[str, list[_LabelRow]] = {"train": [], "val": [], "test": []}
    # `sorted` is stable: categories that are not named keep the order of `label_folders`.
    order = {name: place for place, name in enumerate(categories)}

    def by_category(folder: Path) -> tuple[bool, int]:
        return publisher_split(folder, root) != "train", order.get(to_nfc(folder.parent.name), 0)

    for folder in sorted(label_folders(root), key=by_category):
        rows = list(_read_label_rows(folder))
        n = len(rows)
        # Training folders whole; of a validation folder a third each (docs/sources/beit3.md, B30).
        first, second = (n, n) if publisher_split(folder, root) == "train" else (n // 3, 2 * n // 3)
        for split, some in zip(splits, (rows[:first], rows[first:second], rows[second:]), strict=True):
            splits[split] += some
    return splits


def _read_label_rows(folder: Path) -> Iterator[_LabelRow]:
    image_names = {
        row["image_id"]: row["image"]
        for row in iter_json_records(folder / "images.json", "images", _IMAGE_KEYS, _IMAGE_KEYS)
    }
    answers = {
        row["question_id"]: row["multiple_choice_answer"]
        for row in iter_json_records(folder / "annotation.json", "annotations", _ANSWER_KEYS, _ANSWER_KEYS)
    }
    for row in iter_json_records(folder / "question.json", "questions", _QUESTION_KEYS, _QUESTION_KEYS):
        id, image_id = row["question_id"], row["image_id"]
        if id not in answers or image_id not in image_names:
            raise DataError(
                message(
                    "index.incomplete-aihub-question", "{folder}: question {id} has no answer or no image",
                    folder=folder, id=id,
                ),
                message("index.incomplete-aihub-question.hint", "fetch or unpack it again"),
            )  # fmt: skip
        yield _LabelRow(image_names[image_id], row["question"], answers[id], id)


def _kobeit3_lines(
    rows: Sequence[_LabelRow], labels: dict[str, int], encode: EncodeText, *, is_test: bool
) -> Iterator[UpstreamRow]:
    seen: Counter[str] = Counter()
    for row in rows:
        line: UpstreamRow = {"image_path": row.image, "text_segment": encode(row.question)}
        if is_test:
            yield {**line, "labels": "", "scores": "", "qid": row.id}
        elif row.answer in labels:
            # Counted within the split, and only for rows with a class: mistake 1 of B31.
            seen[row.answer] += 1
            score = min(seen[row.answer], 5) / 5
            yield {**line, "labels": [labels[row.answer]], "scores": [score], "qid": row.id}
