"""Scores of answers, by the very rules of `kovqa evaluate`, once for each different pair of truth and answer.

Of millions of rows few pairs differ, so that Python scores thousands where the database joins millions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from kovqa_core.data.example import Example, parse_example
from kovqa_core.errors import DataError
from kovqa_core.evaluate.protocols import RowScorer, choose_row_scorer

# Between the two JSON texts of a truth; JSON has no such character but by an escape.
TRUTH_MARK = "\x1f"
RIGHT_SCORE = 0.5  # an answer of at least so much is right, as on the page of `kovqa evaluate`


class ScoredPair(NamedTuple):
    """What one answer scores.

    Attributes:
        truth: number of the truth.
        answer: as the model gave it.
        form: in the form in which it was compared.
        score: 0…1.
    """

    truth: int
    answer: str
    form: str
    score: float


@lru_cache(maxsize=1 << 16)  # the truth of many a pair
def parse_truth(text: str) -> Example:
    """The true answers of a row, from the JSON of its answers and its annotations."""
    answers, _, annotations = text.partition(TRUTH_MARK)
    # As the line of an index that it comes from: read by the same code, with the same numbers.
    line = f'{{"id": "", "image": "", "question": "", "answers": {answers}, "annotations": {annotations}}}'
    return parse_example(line, "answers")


def best_forms(truths: Iterable[tuple[int, str]], scorer: RowScorer) -> Iterator[tuple[int, str | None]]:
    """Number of a truth and its best true answer, in the form in which it is compared; None: nobody knows it."""
    others = choose_row_scorer()
    for number, text in truths:
        example = parse_truth(text)
        try:
            scores = scorer(example, "").true_scores
        except DataError:  # a protocol that needs annotations, and a split that has none and is not scored
            scores = others(example, "").true_scores
        # The first of equals: the most frequent one, as in `answer_scores`.
        yield number, max(scores, key=scores.__getitem__, default=None)


def score_pairs(pairs: Iterable[tuple[int, str, str]], scorer: RowScorer) -> Iterator[ScoredPair]:
    """Scores of (number of the truth, truth, answer).

    Raises:
        DataError: the protocol needs annotations that the index lacks.
    """
    for number, text, answer in pairs:
        row = scorer(parse_truth(text), answer)
        yield ScoredPair(number, answer, row.answer_form, row.score)
