"""Where answers err: true answers beside given ones, scores by how often training saw the answer, confused pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kovqa_core.data.example import Example
from kovqa_core.evaluate.answer_scores import AnswerScores
from kovqa_core.evaluate.protocols import ANNOTATOR_PROTOCOLS, AUTO, choose_row_scorer

# Lower ends of the bins of how often training saw an answer.
TRAINING_COUNT_BINS = (0, 1, 5, 20, 100, 1000, 10_000)


@dataclass(frozen=True)
class AnswerCount:
    """How often an answer, in normal form, is the best true one and how often the model gives it."""

    answer: str
    true_rows: int
    given_rows: int


@dataclass(frozen=True)
class AnswerDistribution:
    """True answers beside given ones.

    Attributes:
        counts: the answers that are there most often, true or given, the most frequent true ones first.
        others: all other answers together.
        true_answers, given_answers: so many different ones.
        never_given: true answers that the model never gives.
    """

    counts: Sequence[AnswerCount]
    others: AnswerCount
    true_answers: int
    given_answers: int
    never_given: int


def answer_distribution(scores: AnswerScores, most: int) -> AnswerDistribution:
    """How often each answer is true and how often it is given.

    Args:
        scores: of all rows; those without a true answer count as given alone.
        most: answers that are listed.
    """
    true_rows = Counter(form for form in scores.true_forms if form)
    given_rows = Counter(scores.given_forms)
    names = sorted(true_rows | given_rows, key=lambda name: (-max(true_rows[name], given_rows[name]), name))
    listed = sorted(names[:most], key=lambda name: (-true_rows[name], -given_rows[name], name))
    counts = [AnswerCount(name, true_rows[name], given_rows[name]) for name in listed]
    others = AnswerCount(
        "",
        true_rows.total() - sum(count.true_rows for count in counts),
        given_rows.total() - sum(count.given_rows for count in counts),
    )
    return AnswerDistribution(
        counts, others, len(true_rows), len(given_rows), len(true_rows.keys() - given_rows.keys())
    )


@dataclass(frozen=True)
class TrainingCountBin:
    """Rows whose best true answer training saw about as often.

    Attributes:
        low, high: so often, both included; no `high`: or more often.
        answers: different true answers of these rows.
        rows: at least one.
        score: their mean score, 0…1.
    """

    low: int
    high: int | None
    answers: int
    rows: int
    score: float


@dataclass(frozen=True)
class TrainingCounts:
    """Scores by how often training saw the true answer.

    Attributes:
        bins: those with rows, the rarest answers first.
        unseen: true answers that training never saw, with their rows, the most frequent first.
        training_rows: of the training split.
    """

    bins: Sequence[TrainingCountBin]
    unseen: Sequence[tuple[str, int]]
    training_rows: int


def count_training_answers(
    training: Iterable[Example], rule: str | None, protocol: str
) -> tuple[Counter[str], int]:
    """How many rows of a training split have each answer among their true ones, in the form that scores compare; rows.

    Args:
        training: its rows.
        rule, protocol: by which the answers are scored (`choose_row_scorer`).

    Raises:
        DataError: a row cannot be read, or lacks what the protocol needs.
    """
    # The other protocols compare in the plain form too, but training rows may have neither choices nor points.
    score_row = choose_row_scorer(protocol if protocol in ANNOTATOR_PROTOCOLS else AUTO, rule)
    seen: Counter[str] = Counter()
    rows = 0
    for example in training:
        seen.update(score_row(example, "").true_scores.keys())
        rows += 1
    return seen, rows


def score_by_training_count(scores: AnswerScores, seen: Counter[str], training_rows: int) -> TrainingCounts:
    """Scores by how often training saw the true answer; rows without a true answer are left out.

    Args:
        scores: of all rows.
        seen: answer in normal form -> rows of the training split that have it.
        training_rows: of the training split.
    """
    known = np.array([bool(form) for form in scores.true_forms], bool)
    times = np.array([seen[form] for form in scores.true_forms], np.int64)
    numbers = np.searchsorted(TRAINING_COUNT_BINS, times, side="right") - 1
    bins = []
    for number, low in enumerate(TRAINING_COUNT_BINS):
        chosen = np.flatnonzero(known & (numbers == number))
        if len(chosen):
            last = number + 1 == len(TRAINING_COUNT_BINS)
            high = None if last else TRAINING_COUNT_BINS[number + 1] - 1
            answers = len({scores.true_forms[int(row)] for row in chosen})
            bins.append(TrainingCountBin(low, high, answers, len(chosen), float(scores.each[chosen].mean())))
    unseen = Counter(form for form in scores.true_forms if form and not seen[form])
    return TrainingCounts(bins, unseen.most_common(), training_rows)


@dataclass(frozen=True)
class ConfusedPair:
    """Rows with this best true answer that got this wrong answer, both in normal form."""

    true_answer: str
    given_answer: str
    rows: int


def hidden_pairs(scores: AnswerScores, shown: Collection[str]) -> list[ConfusedPair]:
    """The wrong answers that a table of these answers does not show one by one, the most frequent pairs first.

    Args:
        scores: of all rows; wrong is an answer of less than half a point.
        shown: the answers that head a row and a column of the table.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for true_answer, given_answer, score in zip(
        scores.true_forms, scores.given_forms, scores.each, strict=True
    ):
        if true_answer and score < 0.5 and not (true_answer in shown and given_answer in shown):
            counts[true_answer, given_answer] += 1
    pairs = [ConfusedPair(*names, rows) for names, rows in counts.items()]
    return sorted(pairs, key=lambda pair: (-pair.rows, pair.true_answer, pair.given_answer))
