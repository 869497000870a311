"""VQAv2: the challenge's questions and annotations, ten annotators a question.

Layout: `v2_OpenEnded_mscoco_<part>_questions.json` and `v2_mscoco_<part>_annotations.json` in the
folder or in `vqa/` below it; pictures in `train2014/`, `val2014/`, `test2015/`. `test` and `test-dev`
have no annotations; those two parts may be absent. (docs/sources/beit3.md, B24 to B26)

Answers are in the challenge's normal form. Classes are counted over the answer most annotators
gave, in training questions alone; the original counts validation too (`--as-upstream`).
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from kovqa_core.data.answers import normalise_vqav2, soft_score
from kovqa_core.data.example import Example
from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.data.tables import cell_text
from kovqa_core.errors import DataError
from kovqa_core.index.shards import DatasetShard, LeftOutRows, SourceOptions, SplitExamples

MIN_ANSWER_COUNT = 9
VQAV2_PARTS = {"train2014": "train", "val2014": "val", "test2015": "test", "test-dev2015": "test-dev"}
cached_normal_form = functools.lru_cache(maxsize=1 << 18)(
    normalise_vqav2
)  # few texts make up most of 6.5 million


def find_image_folder(root: Path) -> Path:
    """Where the pictures lie when nothing else is said."""
    return root


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """One piece a part.

    Raises:
        DataError: no training or validation files; later: one that is broken or lacks a key.
    """
    found = []
    for part, split in VQAV2_PARTS.items():
        asked, answered = vqav2_files(root, part)
        if split in ("train", "val") or asked.is_file():
            size = sum(path.stat().st_size for path in (asked, answered) if path.is_file())
            found.append(DatasetShard(partial(_read_vqav2_rows, root, images, part), size))
    return found


def vqav2_files(root: Path, part: str) -> tuple[Path, Path]:
    """The file of questions and that of annotations (which a test part has not)."""
    folder = root / "vqa" if (root / "vqa").is_dir() else root
    asked = folder / f"v2_OpenEnded_mscoco_{part}_questions.json"
    return asked, folder / f"v2_mscoco_{part}_annotations.json"


def vqav2_image_path(part: str, image_id: Any) -> str:
    """A picture's path: train2014/COCO_train2014_000000000009.jpg; test-dev asks about test2015."""
    folder = part.replace("test-dev", "test")
    return f"{folder}/COCO_{folder}_{image_id:0>12}.jpg"


def present_images(images: Path, part: str) -> set[str]:
    """Paths of a part's pictures that are there; the folder is read once.

    Raises:
        DataError: no such folder.
    """
    folder = images / part.replace("test-dev", "test")
    try:
        return {f"{folder.name}/{name}" for name in os.listdir(folder)}  # noqa: PTH208 - names, not paths
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}", "check --images") from None


def iter_annotated_questions(root: Path, part: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every question with its annotation; with {} where it has none."""
    asked, answered = vqav2_files(root, part)
    annotations: Iterator[dict[str, Any]] = iter(())
    if not part.startswith("test"):
        keys = ("question_id", "multiple_choice_answer", "answers")
        annotations = iter_json_records(answered, "annotations", keys)
    waiting: dict[Any, dict[str, Any]] = {}
    for question in iter_json_records(asked, "questions", ("question_id", "image_id", "question")):
        id = question["question_id"]
        while id not in waiting and (row := next(annotations, None)) is not None:
            waiting[row["question_id"]] = row  # the official files have one order, so none waits long
        yield question, waiting.pop(id, {})


def _read_vqav2_rows(root: Path, images: Path, part: str, left_out: LeftOutRows) -> SplitExamples:
    there = present_images(images, part)
    test = part.startswith("test")
    for row, annotation in iter_annotated_questions(root, part):
        id, image, question = (
            cell_text(row["question_id"]), vqav2_image_path(part, row["image_id"]), cell_text(row["question"]).strip(),
        )  # fmt: skip
        try:
            answers = _soft_answers(annotation) if annotation else {}
        except (KeyError, TypeError):
            raise DataError(f"{vqav2_files(root, part)[1]}: question {id} lacks answers[].answer") from None
        if not question:
            left_out.add("question missing", f"id {id}")
        elif not answers and not test:
            left_out.add("no annotation" if not annotation else "answer empty", f"id {id}")
        elif image not in there:
            left_out.add("picture missing", f"id {id}: {image}")
        else:
            yield (
                VQAV2_PARTS[part],
                Example(id, image, question, answers, cell_text(annotation.get("answer_type"))),
            )


def _soft_answers(annotation: dict[str, Any]) -> dict[str, float]:
    """Normalised answers with their soft scores, the one most annotators gave first."""
    most = cached_normal_form(cell_text(annotation["multiple_choice_answer"]))
    given = Counter(cached_normal_form(cell_text(answer["answer"])) for answer in annotation["answers"])
    ordered = dict.fromkeys([most, *(answer for answer, _ in given.most_common())])
    return {answer: soft_score(given[answer]) for answer in ordered if answer and given[answer]}
