"""Scores of answers, by kind of question and type of answer, beside the majority baseline. No torch.

An answer's score is the soft score of its normal form. For questions that ten people answered the
index holds min(0.3 n, 1) for an answer that n of them gave, and that is VQAv2's official rule: the
mean of min(n / 3, 1) over the ten sets that leave one annotator out (docs/sources/datasets.md, D27).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np

from kovqa_core.data.answers import normalise_answer, normalise_vqav2
from kovqa_core.data.example import Example
from kovqa_core.errors import unknown_name_error
from kovqa_core.evaluate.confidence_intervals import score_interval
from kovqa_core.evaluate.normalise_korean import answer_type, normalise_korean
from kovqa_core.messages import message

# Name of a normal form -> answers with the same result are the same answer.
COMPARISON_RULES: dict[str, Callable[[str], str]] = {
    "plain": normalise_answer,
    "korean": normalise_korean,
    "korean-particles": partial(normalise_korean, particles=True),
    "vqav2": normalise_vqav2,
}


@dataclass(frozen=True)
class TypeScore:
    """Scores of one kind of question; shares of 1.

    Attributes:
        kind: the kind, or the type of answer; "" for all together.
        rows: questions of that kind.
        score: mean soft score of the answers given.
        low, high: 95 % interval of the score.
        method: how the interval was found, "wilson" or "bootstrap" (`intervals`).
        majority: what always giving the kind's most frequent answer would score.
    """

    kind: str
    rows: int
    score: float
    low: float
    high: float
    method: str
    majority: float


@dataclass(frozen=True)
class AnswerScores:
    """What `score_answers` found.

    Attributes:
        rule: the normal form answers were compared in.
        kinds: by kind of question, in code point order; empty for an index without kinds.
        groups: by group of kinds, as the index defines them. Their majority baseline knows the kind.
        types: by type of answer: "number", "other", "yes/no".
        total: all together. Its majority baseline knows the kind.
        each: score of every row, in the order given.
        confusion: (best true answer, answer given) -> rows, in normal form.
        unanswered: rows without a true answer; they score 0.
    """

    rule: str
    kinds: list[TypeScore]
    groups: list[TypeScore]
    types: list[TypeScore]
    total: TypeScore
    each: np.ndarray
    confusion: Counter[tuple[str, str]]
    unanswered: int


def merge_normal_forms(answers: Mapping[str, float], form: Callable[[str], str]) -> dict[str, float]:
    """True answers in a normal form; the scores of those that fall together add up to at most 1.

    With scores of min(0.3 n, 1) the sum is exactly what the annotators together would have given.
    """
    merged: dict[str, float] = {}
    for answer, score in answers.items():
        key = form(answer)
        merged[key] = min(1.0, round(merged.get(key, 0.0) + score, 9))
    return merged


def score_answers(
    pairs: Iterable[tuple[Example, str]],
    rule: str = "plain",
    groups: Mapping[str, Sequence[str]] | None = None,
) -> AnswerScores:
    """Scores of (example, answer given).

    Args:
        pairs: examples with the answer a model gave; at least one.
        rule: a name of `RULES`.
        groups: group -> its kinds; a kind is in one group at most. A group without rows has no score.

    Raises:
        SettingsError: an unknown rule.
    """
    if rule not in COMPARISON_RULES:
        raise unknown_name_error(
            message("evaluate.unknown-normal-form", "unknown normal form '{rule}'", rule=rule),
            rule,
            COMPARISON_RULES,
        )
    kinds: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
    types: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
    grouped: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
    group_of = {kind: group for group, members in (groups or {}).items() for kind in members}
    total = _ScoreTally()
    each: list[float] = []
    confusion: Counter[tuple[str, str]] = Counter()
    unanswered = 0
    form, type_of = (
        cache(COMPARISON_RULES[rule]),
        cache(answer_type),
    )  # the same few answers come again and again
    for example, given in pairs:
        truth, said = merge_normal_forms(example.answers, form), form(given)
        score = truth.get(said, 0.0)
        best = max(truth, key=lambda answer: truth[answer], default="")
        unanswered += not truth
        for tally in (kinds[example.question_type], types[type_of(best)], total):
            tally.add(example.image, truth, score)
        if example.question_type in group_of:
            grouped[group_of[example.question_type]].add(example.image, truth, score)
        confusion[best, said] += 1
        each.append(score)
    by_kind = [kinds[kind].score(kind) for kind in sorted(kinds)]

    def majority(of: Collection[TypeScore]) -> float:
        """Of several kinds together: it knows the kind, for that is the baseline to beat."""
        return sum(s.majority * s.rows for s in of) / sum(s.rows for s in of)

    return AnswerScores(
        rule,
        by_kind if kinds.keys() != {""} else [],
        [
            tally.score(group, majority([s for s in by_kind if group_of.get(s.kind) == group]))
            for group, tally in sorted(grouped.items())
        ],
        [types[name].score(name) for name in sorted(types)],
        total.score("", majority(by_kind)),
        np.array(each),
        confusion,
        unanswered,
    )


@dataclass
class _ScoreTally:
    """Sums over the rows of one kind."""

    weights: Counter[str] = field(default_factory=Counter)  # sums of true answers' soft scores
    pictures: dict[str, list[float]] = field(default_factory=dict)  # picture -> sum of scores, rows
    binary: bool = True

    def add(self, picture: str, truth: Mapping[str, float], score: float) -> None:
        self.weights.update(truth)
        sums = self.pictures.setdefault(picture, [0.0, 0])
        sums[0] += score
        sums[1] += 1
        self.binary = self.binary and score in (0.0, 1.0)

    def score(self, kind: str, majority: float | None = None) -> TypeScore:
        # Rounded, so that equal sums are seen to be equal; the score itself is not.
        pictures = np.array([[round(total, 9), rows] for total, rows in self.pictures.values()])
        right, rows = math.fsum(total for total, _ in self.pictures.values()), int(pictures[:, 1].sum())
        if majority is None:
            majority = max(self.weights.values(), default=0.0) / rows
        low, high, method = score_interval(pictures, self.binary)
        return TypeScore(kind, rows, right / rows, low, high, method, majority)
