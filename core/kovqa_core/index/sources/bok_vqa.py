"""BOK-VQA: a question about an image that needs knowledge from outside, in Korean or English, with an English answer.

Layout: `BOKVQA_data_test_ko.csv` and, for training, `BOKVQA_data_ko.csv` (`_en` in English) with the columns `img_name`,
`question`, `h`, `r`, `t`, `answer`, and of training `fold`, of which the authors validate on fold 1. The images come apart.
(docs/sources/benchmarks.md, K12)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from kovqa_core.data.answers import soft_labels
from kovqa_core.data.benchmark_sets import BENCHMARK_SETS
from kovqa_core.data.example import Example
from kovqa_core.data.folder_walk import walk_files
from kovqa_core.data.tables import read_table, record_text
from kovqa_core.errors import DataError, unknown_name_error
from kovqa_core.index.find_image import find_image, row_with_problem
from kovqa_core.index.left_out import ANSWER_EMPTY, QUESTION_MISSING, LeftOutRows
from kovqa_core.index.shards import DatasetShard, SourceOptions, SplitExamples
from kovqa_core.index.sources.benchmarks import note_question_count
from kovqa_core.messages import message

SPLIT_METHOD = "as published; of the training rows, fold 1 is val, as with the authors"
MIN_ANSWER_COUNT = 1  # every training answer is a class, as in the original
ACCEPTED_OPTIONS = ("language",)
QUESTION_TYPE_GROUPS: Mapping[str, Sequence[str]] = {}
_LANGUAGES = ("ko", "en")
_VALIDATION_FOLD = 1
_COLUMNS = {name: (name,) for name in ("img_name", "question", "answer")}
_TRIPLE = ("h", "r", "t")  # the fact that answers the question: head, relation, tail


def find_image_folder(root: Path) -> Path:
    """The folder of the images, or one that it lies below."""
    folder = root if root.is_dir() else root.parent
    return next((f for f in (folder / "image", folder / "data" / "image") if f.is_dir()), folder)


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """The training rows, where they are, and the test rows.

    Raises:
        SettingsError: a language the set does not have.
        DataError: no file of test rows; later: one that is broken or lacks a column.
    """
    language = options.language
    if language not in _LANGUAGES:
        raise unknown_name_error(
            message("index.unknown-language", "unknown language '{language}'", language=language),
            language,
            _LANGUAGES,
            message("index.unknown-language.hint", "use --language ko or --language en"),
        )
    folder = root if root.is_dir() else root.parent
    files = {Path(path).name: folder / path for path in walk_files(folder)} if folder.is_dir() else {}
    test, train = f"BOKVQA_data_test_{language}.csv", f"BOKVQA_data_{language}.csv"
    if test not in files:
        raise DataError(
            message("index.no-bok-vqa-file", "no {file} below {root}", file=test, root=root),
            message("index.no-bok-vqa-file.hint", "fetch it: kovqa download bok-vqa bok-vqa-images"),
        )
    return [
        DatasetShard(partial(_read_rows, files[name], images), files[name].stat().st_size, name=str(files[name]))
        for name in (train, test)
        if name in files
    ]  # fmt: skip


def _read_rows(file: Path, images: Path, left_out: LeftOutRows) -> SplitExamples:
    hint = message("index.bok-vqa-columns.hint", "fetch it again: kovqa download bok-vqa")
    is_test = "_test_" in file.name
    rows = 0
    for line, row in read_table(file, _COLUMNS, hint):
        rows += 1
        place = f"{file}:{line}"
        name, question, answer = (record_text(row, column, place).strip() for column in _COLUMNS)
        image = find_image(images, name)
        answers = soft_labels([answer])
        if not question:
            left_out.add(QUESTION_MISSING, place)
        elif not answers:
            left_out.add(ANSWER_EMPTY, place)
        elif image.path is None:
            left_out.add(image.reason, row_with_problem(place, image))
        else:
            triple = {column: row[column] for column in _TRIPLE if column in row}
            # One question an image; the relation of its fact is what the authors group questions by.
            yield (
                "test" if is_test else _training_split(row.get("fold")),
                Example(name, image.path, question, answers, record_text(row, "r", place), columns=triple),
            )
    if is_test:
        note_question_count(BENCHMARK_SETS["bok-vqa"], rows, left_out)


def _training_split(fold: object) -> str:
    """pandas writes the number with a fraction, for a column with gaps: 1.0."""
    return "val" if str(fold or "").removesuffix(".0") == str(_VALIDATION_FOLD) else "train"
