"""Scores of answers, by question type and answer type, beside the majority baseline. No torch.

What one answer scores, by which protocol and in which normal form, is in `protocols.py`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache

import numpy as np

from kovqa_core.data.example import Example
from kovqa_core.evaluate.confidence_intervals import score_interval
from kovqa_core.evaluate.normalise_korean import answer_type
from kovqa_core.evaluate.protocols import AUTO, RowScore, choose_row_scorer


@dataclass(frozen=True)
class TypeScore:
    """Scores of one question type; in 0…1.

    Attributes:
        name: of the question type, group or answer type; "" for all together.
        rows: questions of that type.
        score: mean soft score of the answers given.
        low, high: 95 % interval of the score.
        method: how the interval was found, "wilson" or "bootstrap" (`confidence_intervals`).
        majority: what always giving the type's most frequent answer would score.
    """

    name: str
    rows: int
    score: float
    low: float
    high: float
    method: str
    majority: float

    def json_fields(self) -> dict[str, str | int | float]:
        """The fields as `--json` has them, where the name is called `kind`."""
        fields = asdict(self)
        return {"kind": fields.pop("name"), **fields}


@dataclass(frozen=True)
class AnswerScores:
    """What `score_answers` returns.

    Attributes:
        rule: the normal form answers were compared in; "auto": in that of each question's protocol.
        protocols: protocol (`protocols.py`) -> questions scored by it, the most first; without those unanswered.
        question_types: by question type, in code point order; empty for an index without types.
        groups: by group of types, as the index defines them. Their majority baseline knows the type.
        types: by type of answer: "number", "other", "yes/no".
        total: all together. Its majority baseline knows the type.
        each: score of every row, in the order given; [rows].
        confusion: (best true answer, model's answer) -> rows, in normal form.
        unanswered: rows without a true answer; they score 0.
        true_forms: best true answer of every row, in normal form; "" where there is none.
        given_forms: the model's answer of every row, in normal form.
    """

    rule: str
    protocols: Mapping[str, int]
    question_types: list[TypeScore]
    groups: list[TypeScore]
    types: list[TypeScore]
    total: TypeScore
    each: np.ndarray
    confusion: Counter[tuple[str, str]]
    unanswered: int
    true_forms: Sequence[str] = ()
    given_forms: Sequence[str] = ()


def score_answers(
    pairs: Iterable[tuple[Example, str]],
    rule: str | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    protocol: str = AUTO,
) -> AnswerScores:
    """Scores of (example, model's answer).

    Args:
        pairs: examples with the answer a model gave; at least one.
        rule: the normal form; None: each protocol's own (`choose_row_scorer`).
        groups: group -> its question types; a type is in one group at most. A group without rows has no score.
        protocol: by which answers are scored; "auto": each question by the number of its annotators.

    Raises:
        SettingsError: an unknown rule or protocol.
        DataError: an example has no annotations and the protocol needs them.
    """
    score_row = choose_row_scorer(protocol, rule)
    group_of = {name: group for group, members in (groups or {}).items() for name in members}
    tallies = _AnswerTallies(group_of)
    for example, answer in pairs:
        tallies.add(example, score_row(example, answer))
    return tallies.answer_scores()


class _AnswerTallies:
    """The tallies of all answers: by question type, by group of types, by answer type, and in all.

    Args:
        group_of: question type -> its group.
    """

    def __init__(self, group_of: Mapping[str, str]) -> None:
        # Cached: the same few answers come again and again, and the Korean rules are many regular expressions.
        self._answer_type = cache(answer_type)
        self._group_of = group_of
        self._by_type: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
        self._by_group: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
        self._by_answer_type: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
        self._total = _ScoreTally()
        self._each: list[float] = []
        self._true_forms: list[str] = []
        self._given_forms: list[str] = []
        self._rules: set[str] = set()
        self._protocols: Counter[str] = Counter()
        self._unanswered = 0

    def add(self, example: Example, row: RowScore) -> None:
        """Count one answer in every tally it belongs to."""
        true_scores = row.true_scores
        best = best_true_form(row)
        tallies = [
            self._by_type[example.question_type],
            self._by_answer_type[self._answer_type(best)],
            self._total,
        ]
        if example.question_type in self._group_of:
            tallies.append(self._by_group[self._group_of[example.question_type]])
        for tally in tallies:
            tally.add(example.image, true_scores, row.score)
        self._true_forms.append(best)
        self._given_forms.append(row.answer_form)
        self._each.append(row.score)
        self._unanswered += not true_scores
        self._rules.add(row.rule)
        if true_scores:
            self._protocols[row.protocol] += 1

    def answer_scores(self) -> AnswerScores:
        """The scores of all answers so far."""
        type_scores = [self._by_type[name].score(name) for name in sorted(self._by_type)]
        return AnswerScores(
            rule=next(iter(self._rules)) if len(self._rules) == 1 else AUTO,
            protocols=dict(self._protocols.most_common()),
            # A data set without question types has the one type "": it would repeat the total.
            question_types=type_scores if self._by_type.keys() != {""} else [],
            groups=[
                tally.score(
                    group, _majority_by_type([s for s in type_scores if self._group_of.get(s.name) == group])
                )
                for group, tally in sorted(self._by_group.items())
            ],
            types=[self._by_answer_type[name].score(name) for name in sorted(self._by_answer_type)],
            total=self._total.score("", _majority_by_type(type_scores)),
            each=np.array(self._each),
            confusion=Counter(zip(self._true_forms, self._given_forms, strict=True)),
            unanswered=self._unanswered,
            true_forms=self._true_forms,
            given_forms=self._given_forms,
        )


def best_true_form(row: RowScore) -> str:
    """The true answer that scores most, in normal form, the most frequent one of equals; "" without one."""
    # max() takes the first of equals, and the most frequent answer comes first.
    return max(row.true_scores, key=row.true_scores.__getitem__, default="")


def _majority_by_type(scores: Collection[TypeScore]) -> float:
    """The majority baseline of several types together: it knows the type, for that is the baseline to beat."""
    return sum(s.majority * s.rows for s in scores) / sum(s.rows for s in scores)


@dataclass
class _ScoreTally:
    """Sums over the rows of one type."""

    true_weights: dict[str, float] = field(default_factory=dict)  # sums of true answers' scores
    image_sums: dict[str, list[float]] = field(default_factory=dict)  # image -> sum of scores, rows
    binary: bool = True

    def add(self, image: str, true_scores: Mapping[str, float], score: float) -> None:
        for answer, weight in true_scores.items():  # faster than Counter.update, for one or two answers
            self.true_weights[answer] = self.true_weights.get(answer, 0.0) + weight
        sums = self.image_sums.setdefault(image, [0.0, 0])
        sums[0] += score
        sums[1] += 1
        # Once a score between 0 and 1 has come, Wilson's interval is out (`confidence_intervals`).
        self.binary = self.binary and score in (0.0, 1.0)

    def score(self, name: str, majority: float | None = None) -> TypeScore:
        # Rounded, so that equal sums are seen to be equal and the bootstrap can count them; the score is not.
        images = np.array([[round(total, 9), rows] for total, rows in self.image_sums.values()])
        # fsum: the mean must not depend on the order of the images.
        right, rows = math.fsum(total for total, _ in self.image_sums.values()), int(images[:, 1].sum())
        if majority is None:
            majority = max(self.true_weights.values(), default=0.0) / rows
        low, high, method = score_interval(images, binary=self.binary)
        return TypeScore(name, rows, right / rows, low, high, method, majority)
