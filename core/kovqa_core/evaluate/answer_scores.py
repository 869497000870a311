"""Scores of answers, by question type and answer type, beside the majority baseline. No torch.

An answer's score is the soft score of its normal form. For questions that ten people answered the
index holds min(0.3 n, 1) for an answer that n of them gave, and that is VQAv2's official rule: the
mean of min(n / 3, 1) over the ten sets that leave one annotator out (docs/sources/datasets.md, D27).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial

import numpy as np

from kovqa_core.data.answers import merge_normal_forms, normalise_answer, normalise_vqav2
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
        rule: the normal form answers were compared in.
        question_types: by question type, in code point order; empty for an index without types.
        groups: by group of types, as the index defines them. Their majority baseline knows the type.
        types: by type of answer: "number", "other", "yes/no".
        total: all together. Its majority baseline knows the type.
        each: score of every row, in the order given; [rows].
        confusion: (best true answer, model's answer) -> rows, in normal form.
        unanswered: rows without a true answer; they score 0.
    """

    rule: str
    question_types: list[TypeScore]
    groups: list[TypeScore]
    types: list[TypeScore]
    total: TypeScore
    each: np.ndarray
    confusion: Counter[tuple[str, str]]
    unanswered: int


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
    group_of = {name: group for group, members in (groups or {}).items() for name in members}
    tallies = _AnswerTallies(COMPARISON_RULES[rule], group_of)
    for example, answer in pairs:
        tallies.add(example, answer)
    return tallies.answer_scores(rule)


class _AnswerTallies:
    """The tallies of all answers: by question type, by group of types, by answer type, and in all.

    Args:
        form: the normal form answers are compared in.
        group_of: question type -> its group.
    """

    def __init__(self, form: Callable[[str], str], group_of: Mapping[str, str]) -> None:
        # Cached: the same few answers come again and again, and the Korean rules are many regular expressions.
        self._normal_form, self._answer_type = cache(form), cache(answer_type)
        self._group_of = group_of
        self._by_type: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
        self._by_group: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
        self._by_answer_type: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
        self._total = _ScoreTally()
        self._each: list[float] = []
        self._confusion: Counter[tuple[str, str]] = Counter()
        self._unanswered = 0

    def add(self, example: Example, answer: str) -> None:
        """Score one answer, and count it in every tally it belongs to."""
        true_scores = merge_normal_forms(example.answers, self._normal_form)
        answer_form = self._normal_form(answer)
        score = true_scores.get(answer_form, 0.0)
        # max() takes the first of equals, and an index lists an example's most frequent answer first.
        best = max(true_scores, key=lambda answer: true_scores[answer], default="")
        tallies = [
            self._by_type[example.question_type],
            self._by_answer_type[self._answer_type(best)],
            self._total,
        ]
        if example.question_type in self._group_of:
            tallies.append(self._by_group[self._group_of[example.question_type]])
        for tally in tallies:
            tally.add(example.image, true_scores, score)
        self._confusion[best, answer_form] += 1
        self._each.append(score)
        self._unanswered += not true_scores

    def answer_scores(self, rule: str) -> AnswerScores:
        """The scores of all answers so far; `rule` is the name of their normal form."""
        type_scores = [self._by_type[name].score(name) for name in sorted(self._by_type)]
        return AnswerScores(
            rule=rule,
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
            confusion=self._confusion,
            unanswered=self._unanswered,
        )


def _majority_by_type(scores: Collection[TypeScore]) -> float:
    """The majority baseline of several types together: it knows the type, for that is the baseline to beat."""
    return sum(s.majority * s.rows for s in scores) / sum(s.rows for s in scores)


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
