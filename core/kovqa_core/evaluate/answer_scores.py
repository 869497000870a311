"""Scores of answers, by question type and answer type, beside the majority baseline. No torch.

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
    """Scores of one question type; in 0…1.

    Attributes:
        kind: the question type, group or answer type; "" for all together. (`kind` is the key of `--json`.)
        rows: questions of that type.
        score: mean soft score of the answers given.
        low, high: 95 % interval of the score.
        method: how the interval was found, "wilson" or "bootstrap" (`confidence_intervals`).
        majority: what always giving the type's most frequent answer would score.
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
    """What `score_answers` returns.

    Attributes:
        rule: the normal form answers were compared in.
        kinds: by question type, in code point order; empty for an index without types.
        groups: by group of types, as the index defines them. Their majority baseline knows the type.
        types: by type of answer: "number", "other", "yes/no".
        total: all together. Its majority baseline knows the type.
        each: score of every row, in the order given; [rows].
        confusion: (best true answer, model's answer) -> rows, in normal form.
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
    """Scores of (example, model's answer).

    Args:
        pairs: examples with the answer a model gave; at least one.
        rule: a name of `COMPARISON_RULES`.
        groups: group -> its question types; a type is in one group at most. A group without rows has no score.

    Raises:
        SettingsError: an unknown rule.
    """
    if rule not in COMPARISON_RULES:
        raise unknown_name_error(
            message("evaluate.unknown-rule", "unknown normal form '{name}'", name=rule),
            rule,
            COMPARISON_RULES,
        )
    by_type: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
    by_answer_type: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
    by_group: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
    group_of = {name: group for group, members in (groups or {}).items() for name in members}
    total = _ScoreTally()
    each: list[float] = []
    confusion: Counter[tuple[str, str]] = Counter()
    unanswered = 0
    # Cached: the same few answers come again and again, and the Korean rules are many regular expressions.
    normal_form, type_of = cache(COMPARISON_RULES[rule]), cache(answer_type)
    for example, answer in pairs:
        true_scores, answer_form = merge_normal_forms(example.answers, normal_form), normal_form(answer)
        score = true_scores.get(answer_form, 0.0)
        best = max(true_scores, key=lambda answer: true_scores[answer], default="")
        unanswered += not true_scores
        for tally in (by_type[example.question_type], by_answer_type[type_of(best)], total):
            tally.add(example.image, true_scores, score)
        if example.question_type in group_of:
            by_group[group_of[example.question_type]].add(example.image, true_scores, score)
        confusion[best, answer_form] += 1
        each.append(score)
    type_scores = [by_type[name].score(name) for name in sorted(by_type)]

    def majority(scores: Collection[TypeScore]) -> float:
        """Of several types together: it knows the type, for that is the baseline to beat."""
        return sum(s.majority * s.rows for s in scores) / sum(s.rows for s in scores)

    return AnswerScores(
        rule=rule,
        kinds=type_scores if by_type.keys() != {""} else [],
        groups=[
            tally.score(group, majority([s for s in type_scores if group_of.get(s.kind) == group]))
            for group, tally in sorted(by_group.items())
        ],
        types=[by_answer_type[name].score(name) for name in sorted(by_answer_type)],
        total=total.score("", majority(type_scores)),
        each=np.array(each),
        confusion=confusion,
        unanswered=unanswered,
    )


@dataclass
class _ScoreTally:
    """Sums over the rows of one type."""

    true_weights: Counter[str] = field(default_factory=Counter)  # sums of true answers' soft scores
    image_sums: dict[str, list[float]] = field(default_factory=dict)  # image -> sum of scores, rows
    binary: bool = True

    def add(self, image: str, true_scores: Mapping[str, float], score: float) -> None:
        self.true_weights.update(true_scores)
        sums = self.image_sums.setdefault(image, [0.0, 0])
        sums[0] += score
        sums[1] += 1
        self.binary = self.binary and score in (0.0, 1.0)

    def score(self, name: str, majority: float | None = None) -> TypeScore:
        # Rounded, so that equal sums are seen to be equal and the bootstrap can count them; the score is not.
        images = np.array([[round(total, 9), rows] for total, rows in self.image_sums.values()])
        right, rows = math.fsum(total for total, _ in self.image_sums.values()), int(images[:, 1].sum())
        if majority is None:
            majority = max(self.true_weights.values(), default=0.0) / rows
        low, high, method = score_interval(images, binary=self.binary)
        return TypeScore(name, rows, right / rows, low, high, method, majority)
