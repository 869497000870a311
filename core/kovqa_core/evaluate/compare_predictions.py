"""Two predictions files about the same split: whose answers are better, by how much, and is that more than chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kovqa_core.errors import DataError
from kovqa_core.evaluate.answer_scores import AnswerScores
from kovqa_core.evaluate.evaluation import EvaluationResult
from kovqa_core.evaluate.paired_tests import (
    McNemarTest,
    PairedBootstrap,
    holm_correction,
    mcnemar_test,
    paired_bootstrap,
)
from kovqa_core.messages import message


@dataclass(frozen=True)
class TypeComparison:
    """Two models' scores of one question type, or of all together.

    Attributes:
        name: of the type; "" for all together.
        rows: questions, or captions.
        score_a, score_b: mean scores; of captions CIDEr.
        test: of their difference.
        corrected_p: of a type: its p value after Holm's correction for all types; of all together: p itself.
    """

    name: str
    rows: int
    score_a: float
    score_b: float
    test: PairedBootstrap
    corrected_p: float


@dataclass(frozen=True)
class PredictionsComparison:
    """Two predictions files about the same rows.

    Attributes:
        a, b: their evaluations.
        total: of all rows.
        question_types: by type, in code point order; empty for captions and an index without types.
        mcnemar: of right and wrong answers; None for captions.
        same_texts: rows to which both say the same, letter by letter.
    """

    a: EvaluationResult
    b: EvaluationResult
    total: TypeComparison
    question_types: Sequence[TypeComparison]
    mcnemar: McNemarTest | None
    same_texts: int

    @property
    def identical(self) -> bool:
        """Do both files say the same everywhere?"""
        return self.same_texts == self.total.rows

    @property
    def metric(self) -> str:
        """What is compared: "score" of answers, or the main metric of captions."""
        return "score" if isinstance(self.a.scores, AnswerScores) else self.a.scores.main.name


def compare_predictions(a: EvaluationResult, b: EvaluationResult) -> PredictionsComparison:
    """Compare two files that were scored against the same split with the same options.

    Captions are compared by CIDEr, which is a mean over images: how rare an n-gram is, is learned from the references,
    which are the same for both.

    Raises:
        DataError: one holds answers, the other captions.
    """
    if a.predictions.task != b.predictions.task:
        captions, answers = (a, b) if a.predictions.task == "caption" else (b, a)
        raise DataError(
            message(
                "evaluate.compare-two-tasks", "{captions} holds captions, {answers} answers",
                captions=captions.predictions_path, answers=answers.predictions_path,
            ),
            message("evaluate.compare-two-tasks.hint", "compare two files of one kind"),
        )  # fmt: skip
    each_a, each_b = row_scores(a), row_scores(b)
    ids, types, images = [], [], []
    for example in a.examples:
        ids.append(example.id)
        types.append(example.question_type)
        images.append(example.image)
    image_numbers = np.unique(images, return_inverse=True)[1]
    is_right = each_a >= 0.5, each_b >= 0.5
    of_answers = isinstance(a.scores, AnswerScores)
    return PredictionsComparison(
        a, b,
        _compare_rows("", each_a, each_b, image_numbers),
        _compare_types(types, each_a, each_b, image_numbers) if of_answers else [],
        mcnemar_test(*is_right, image_numbers) if of_answers else None,
        sum(a.predictions.texts[id] == b.predictions.texts[id] for id in ids),
    )  # fmt: skip


def row_scores(result: EvaluationResult) -> np.ndarray:
    """The score of every row: of an answer in 0…1, of a caption its CIDEr; [rows]."""
    return result.scores.each if isinstance(result.scores, AnswerScores) else result.scores.main.each


def _compare_rows(name: str, a: np.ndarray, b: np.ndarray, image_numbers: np.ndarray) -> TypeComparison:
    numbers = np.unique(image_numbers, return_inverse=True)[1]  # of these rows, without gaps
    test = paired_bootstrap(a, b, numbers)
    return TypeComparison(name, len(a), float(a.mean()), float(b.mean()), test, test.p)


def _compare_types(
    types: Sequence[str], a: np.ndarray, b: np.ndarray, image_numbers: np.ndarray
) -> list[TypeComparison]:
    """Each question type by itself; none where there is only the one type ""."""
    names, type_numbers = np.unique(types, return_inverse=True)
    if list(names) == [""]:
        return []
    compared = []
    for number, name in enumerate(names):
        rows = type_numbers == number
        compared.append(_compare_rows(str(name), a[rows], b[rows], image_numbers[rows]))
    corrected = holm_correction([each.test.p for each in compared])
    return [
        TypeComparison(each.name, each.rows, each.score_a, each.score_b, each.test, p)
        for each, p in zip(compared, corrected, strict=True)
    ]
