"""AI-Hub data set 71357, 외부 지식 기반 멀티모달 질의응답: two questions a picture (VQA_NIA).

Layout: `train.json`, `valid.json`, `test.json`, each with `annotations[]` of `IMAGE_NAME` and two
`questions`; pictures in `image/`. The first question (A) needs outside knowledge and says which by
`ans_source`: `triple`, `abstract` or `multiple`; the second (B) asks about the picture: `vqa`.
The texts of the knowledge base are not read: no model of ours is fed with them.
(docs/sources/vqa_nia.md, N17 and N18)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from kovqa_core.data.answers import soft_labels
from kovqa_core.data.example import Example
from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.data.tables import cell_text
from kovqa_core.errors import DataError, unknown_name_error
from kovqa_core.index.find_image import find_image
from kovqa_core.index.shards import DatasetShard, LeftOutRows, SourceOptions, SplitExamples
from kovqa_core.messages import message

NIA_SPLITS = {"train": "train", "valid": "val", "test": "test"}  # the publisher's name -> ours
QUESTION_TYPE_GROUPS = {
    "A": ("triple", "abstract", "multiple"),
    "B": ("vqa",),
}  # kinds scored together as well
MIN_ANSWER_COUNT = 1  # every answer is a class, as in the original
ACCEPTED_OPTIONS = ("language",)
NIA_LANGUAGES = ("ko", "en")


def find_image_folder(root: Path) -> Path:
    """Where the pictures lie when nothing else is said."""
    return root / "image"


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """One piece a split.

    Raises:
        SettingsError: a language the set does not have.
        DataError: a split's file is missing; later: one that is broken or lacks a key.
    """
    if options.language not in NIA_LANGUAGES:
        raise unknown_name_error(
            message("index.unknown-language", "unknown language '{language}'", language=options.language),
            options.language,
            NIA_LANGUAGES,
            "--language ko or --language en",
        )
    files = [root / f"{name}.json" for name in NIA_SPLITS]
    for file in files:
        if not file.is_file():
            raise DataError(f"no {file}", "train.json, valid.json and test.json lie side by side")
    return [
        DatasetShard(partial(_read_nia_split, file, images, options.language), file.stat().st_size)
        for file in files
    ]


def _read_nia_split(file: Path, images: Path, language: str, left_out: LeftOutRows) -> SplitExamples:
    """Examples of one split, A then B for every picture."""
    for name, part, question in nia_questions(file):
        id = cell_text(question.get("question_id")) or f"{name}/{part}"
        asked = cell_text(question.get(f"question_{language}")).strip()
        answers = soft_labels([cell_text(question.get(f"answer_{language}"))])
        image = find_image(images, name)
        if not asked:
            left_out.add("question missing", f"id {id}: question_{language} in {file}")
        elif not answers:
            left_out.add("answer empty", f"id {id}: answer_{language} in {file}")
        elif image is None:
            left_out.add("picture missing", f"id {id}: {name}")
        else:
            yield NIA_SPLITS[file.stem], Example(id, image, asked, answers, nia_question_type(part, question))


def nia_question_type(part: str, question: dict[str, Any]) -> str:
    """Where an answer comes from: `ans_source` of an A question, `vqa` for every B question."""
    return "vqa" if part == "B" else cell_text(question.get("ans_source"))


def nia_questions(file: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Picture's name, "A" or "B", and the question's record, in the file's order.

    Raises:
        DataError: broken JSON, a record without picture or questions.
    """
    for number, row in enumerate(iter_json_records(file, "annotations", ("IMAGE_NAME", "questions")), 1):
        asked = row["questions"]
        if not isinstance(asked, list) or not all(isinstance(question, dict) for question in asked):
            raise DataError(f"{file}: record {number}: 'questions' is no list of records")
        for part, question in zip("AB", asked, strict=False):
            yield cell_text(row["IMAGE_NAME"]), part, question
