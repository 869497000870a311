"""Questions one choice of which means "unknown": balanced accuracy, and below which score to answer with that choice.

Ambiguous rows are those whose true answer is that choice, clear rows all others. Balanced accuracy is the mean of the
accuracies over the two, so that always answering "unknown", or never, is worth one half at most (docs/sources/choices.md,
C3). An answer counts by the choice that it names (`data/choice_columns.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kovqa_core.data.choice_columns import named_choice
from kovqa_core.data.decoding import find_choice
from kovqa_core.data.example import Example

_LISTED_THRESHOLDS = 10  # of a table, and the best: 0, 0.1, …
_DECIMALS = 6  # of scores in predictions files


@dataclass(frozen=True)
class BalancedAccuracy:
    """Accuracy over ambiguous and clear rows.

    Attributes:
        ambiguous, clear: rows of each.
        ambiguous_score, clear_score: fraction of them that is right; nan of no rows.
        abstained: of all these rows, those answered with "unknown".
    """

    ambiguous: int
    clear: int
    ambiguous_score: float
    clear_score: float
    abstained: int

    @property
    def balanced(self) -> float:
        """Mean of the two; nan without ambiguous or without clear rows."""
        return (self.ambiguous_score + self.clear_score) / 2


@dataclass(frozen=True)
class Threshold:
    """What abstaining below a score gives.

    Attributes:
        below: the score, 0…1: an answer of a lower one becomes "unknown".
        coverage: fraction of rows that get another answer than "unknown".
        answered_score: of these, the fraction that is right; nan of no rows.
        balanced: balanced accuracy.
    """

    below: float
    coverage: float
    answered_score: float
    balanced: float


@dataclass(frozen=True)
class AbstentionScores:
    """What a predictions file gains by abstaining.

    Attributes:
        given: its answers as they are.
        thresholds: some, ascending, `best` among them; empty where answers have no scores, or balanced accuracy is not
            defined.
        best: the threshold of the highest balanced accuracy, the lowest of equals; None: see `thresholds`.
        unscored: rows whose answer has no score: they never abstain.
    """

    given: BalancedAccuracy
    thresholds: Sequence[Threshold] = ()
    best: Threshold | None = None
    unscored: int = 0


def score_abstention(
    examples: Sequence[Example],
    answers: Mapping[str, str],
    scores: Mapping[str, float],
    abstained_from: Mapping[str, str] | None = None,
) -> AbstentionScores | None:
    """Balanced accuracy of answers, and the threshold that would be best; None where no row has an "unknown" choice.

    Rows without a true answer among their choices are passed over.

    Args:
        examples: what is answered.
        answers: by id.
        scores: of the answers, by id; some may lack one.
        abstained_from: answers in whose place "unknown" was given, by id: thresholds are chosen by these.
    """
    rows = [row for example in examples if (row := _numbered_row(example, answers, abstained_from or {}))]
    if not rows:
        return None
    true, unknown, given, own = (np.array(column) for column in zip(*(row[1:] for row in rows), strict=True))
    score = np.array([scores.get(row[0], np.nan) for row in rows])
    as_given = _balanced_accuracy(true, unknown, given)
    ambiguous = true == unknown
    if ambiguous.all() or not ambiguous.any() or np.isnan(score).all():
        return AbstentionScores(as_given)
    facts = (true == own, ambiguous, own != unknown, score)
    best = _best_threshold(*facts)
    tenths = [number / _LISTED_THRESHOLDS for number in range(_LISTED_THRESHOLDS)]
    thresholds = {below: _threshold(below, *facts) for below in sorted({*tenths, best})}
    return AbstentionScores(as_given, list(thresholds.values()), thresholds[best], int(np.isnan(score).sum()))


_NumberedRow = tuple[
    str, int, int, int, int
]  # id, true choice, "unknown", the answer given, and before it abstained


def _numbered_row(
    example: Example, answers: Mapping[str, str], abstained_from: Mapping[str, str]
) -> _NumberedRow | None:
    if not example.unknown:
        return None
    choices = example.choices
    best = max(example.answers, key=lambda answer: example.answers[answer], default="")
    unknown, true = find_choice(choices, example.unknown), find_choice(choices, best)
    if unknown is None or true is None:
        return None
    given, own = (
        -1 if (number := named_choice(choices, text)) is None else number
        for text in (answers[example.id], abstained_from.get(example.id) or answers[example.id])
    )
    return example.id, true, unknown, given, own


def _balanced_accuracy(true: np.ndarray, unknown: np.ndarray, given: np.ndarray) -> BalancedAccuracy:
    right, ambiguous = true == given, true == unknown
    ambiguous_score, clear_score = (
        float(right[some].mean()) if some.any() else float("nan") for some in (ambiguous, ~ambiguous)
    )
    counts = int(ambiguous.sum()), int((~ambiguous).sum())
    return BalancedAccuracy(*counts, ambiguous_score, clear_score, int((given == unknown).sum()))


def _best_threshold(
    right: np.ndarray, ambiguous: np.ndarray, answers: np.ndarray, score: np.ndarray
) -> float:
    """The score below which abstaining gives the highest balanced accuracy; the lowest of equals.

    Args:
        right, ambiguous, answers: [rows] bool: the model's own answer is true; "unknown" is true; it is another answer.
        score: of the answer, [rows]; nan: none.
    """
    order = np.argsort(score, kind="stable")  # nan last: they never abstain
    ordered = score[order][: int((~np.isnan(score)).sum())]
    # What the first n rows, the least sure ones, gain by abstaining together.
    gains = (ambiguous & answers) / ambiguous.sum() - (~ambiguous & answers & right) / (~ambiguous).sum()
    gained = np.concatenate(([0.0], np.cumsum(gains[order][: len(ordered)])))
    # Nothing lies between two equal scores, nor above a score of 1.
    gained[1:-1][ordered[:-1] == ordered[1:]] = -np.inf
    if ordered[-1] >= 1:
        gained[-1] = -np.inf
    n = int(np.argmax(np.round(gained, 12)))  # of equals the first, though sums differ in their last digits
    if n in (0, len(ordered)):
        return 0.0 if n == 0 else 1.0
    middle = round(float(ordered[n - 1] + ordered[n]) / 2, _DECIMALS)
    return middle if ordered[n - 1] < middle <= ordered[n] else float(ordered[n])


def _threshold(
    below: float, right: np.ndarray, ambiguous: np.ndarray, answers: np.ndarray, score: np.ndarray
) -> Threshold:
    """What abstaining below a score gives; arguments as above."""
    answered = answers & ~(score < below)
    clear_score = (right & answered & ~ambiguous).sum() / (~ambiguous).sum()
    ambiguous_score = (~answered & ambiguous).sum() / ambiguous.sum()
    return Threshold(
        below,
        float(answered.mean()),
        float(right[answered].mean()) if answered.any() else float("nan"),
        float((ambiguous_score + clear_score) / 2),
    )
