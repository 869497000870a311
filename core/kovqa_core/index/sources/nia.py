"""AI-Hub data set 71357, 외부 지식 기반 멀티모달 질의응답: two questions per image (VQA_NIA).

Layout: `train.json`, `valid.json`, `test.json`, each with `annotations[]` of `IMAGE_NAME` and two
`questions`; images in `image/`. The first question (A) needs outside knowledge and names its source in
`ans_source`: `triple`, `abstract` or `multiple`; the second (B) is about the image: `vqa`. The texts of the
knowledge base are not read, for no model here takes them.
(docs/sources/vqa_nia.md, N17 and N18)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from kovqa_core.data.answers import soft_labels
from kovqa_core.data.example import Example
from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.data.json_values import JsonRecord
from kovqa_core.data.tables import cell_text, record_text
from kovqa_core.errors import DataError, unknown_name_error
from kovqa_core.index.find_image import find_image, row_with_problem
from kovqa_core.index.folder_names import other_splits
from kovqa_core.index.left_out import ANSWER_EMPTY, QUESTION_MISSING, LeftOutRows
from kovqa_core.index.shards import DatasetShard, SourceOptions, SplitExamples
from kovqa_core.messages import Message, message

NIA_SPLITS = {"train": "train", "valid": "val", "test": "test"}  # the publisher's name -> ours
SPLIT_METHOD = "as published"
MIN_ANSWER_COUNT = 1  # every answer is a class, as in the original
ACCEPTED_OPTIONS = ("language",)
QUESTION_TYPE_GROUPS = {"A": ("triple", "abstract", "multiple"), "B": ("vqa",)}
NIA_LANGUAGES = ("ko", "en")


def find_image_folder(root: Path) -> Path:
    """The folder of the images, unless the user names another."""
    return root / "image"


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """One shard per split.

    Raises:
        SettingsError: a language the set does not have.
        DataError: a split's file is missing; later: one that is broken or lacks a key.
    """
    if options.language not in NIA_LANGUAGES:
        raise unknown_name_error(
            message("index.unknown-language", "unknown language '{language}'", language=options.language),
            options.language,
            NIA_LANGUAGES,
            message("index.unknown-language.hint", "use --language ko or --language en"),
        )
    files = [root / f"{name}.json" for name in NIA_SPLITS]
    for file in files:
        if not file.is_file():
            raise DataError(
                message("index.no-nia-file", "no file {file}", file=file),
                message(
                    "index.no-nia-file.hint", "train.json, valid.json and test.json must be in one folder"
                ),
            )
    return [
        DatasetShard(
            partial(_read_nia_split, file, images, options.language), file.stat().st_size, name=str(file)
        )
        for file in files
    ]


def _column_in_file(id: str, column: str, file: Path) -> Message:
    return message("index.column-in-file", "id {id}: {column} in {file}", id=id, column=column, file=file)


def _read_nia_split(file: Path, images: Path, language: str, left_out: LeftOutRows) -> SplitExamples:
    """Examples of one split, A then B for every image."""
    own_folders, others = (NIA_SPLITS[file.stem],), other_splits(NIA_SPLITS[file.stem])
    for name, letter, record in nia_questions(file, as_text=True):
        place = f"{file}: {name} ({letter})"  # of every row: no message
        id = record_text(record, "question_id", place) or f"{name}/{letter}"
        question = record_text(record, f"question_{language}", place).strip()
        answers = soft_labels([record_text(record, f"answer_{language}", place)])
        image = find_image(images, name, own_folders, others)
        if not question:
            left_out.add(QUESTION_MISSING, _column_in_file(id, f"question_{language}", file))
        elif not answers:
            left_out.add(ANSWER_EMPTY, _column_in_file(id, f"answer_{language}", file))
        elif image.path is None:
            left_out.add(image.reason, row_with_problem(f"id {id}", image))
        else:
            question_type = nia_question_type(letter, record, place)
            yield NIA_SPLITS[file.stem], Example(id, image.path, question, answers, question_type)


def nia_question_type(letter: str, record: JsonRecord, place: str) -> str:
    """Where an answer comes from: `ans_source` of an A question, `vqa` for every other (`place`: for errors)."""
    return "vqa" if letter != "A" else record_text(record, "ans_source", place)


def nia_questions(file: Path, *, as_text: bool = False) -> Iterator[tuple[str, str, JsonRecord]]:
    """The image's name, "A" or "B" (or the next letter), and the question's record, in the file's order.

    Args:
        file: of one split.
        as_text: numbers as the text they are written with.

    Raises:
        DataError: broken JSON, a record without image or questions.
    """
    keys = ("IMAGE_NAME", "questions")
    for number, row in enumerate(
        iter_json_records(file, "annotations", keys, ("IMAGE_NAME",), as_text=as_text), 1
    ):
        records = row["questions"]
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise DataError(
                message(
                    "index.bad-nia-questions", "{file}: record {number}: 'questions' is not a list of records",
                    file=file, number=number,
                )
            )  # fmt: skip
        for place, record in enumerate(records):
            yield cell_text(row["IMAGE_NAME"]), chr(ord("A") + place), record
