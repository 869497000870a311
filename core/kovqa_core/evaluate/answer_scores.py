"""Scores of answers, by question type and answer type, beside the majority baseline. No torch.

What one answer scores, by which protocol and in which normal form, is in `protocols.py`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache

import numpy as np

from kovqa_core.data.example import Example
from kovqa_core.evaluate.choice_readers import Unread
from kovqa_core.evaluate.circular_scores import score_circular_questions
from kovqa_core.evaluate.confidence_intervals import mean_of_means_interval, score_interval
from kovqa_core.evaluate.normalise_korean import answer_type
from kovqa_core.evaluate.protocols import (
    AUTO,
    CIRCULAR,
    JUDGED_PROTOCOLS,
    RowPoints,
    RowScore,
    choose_row_scorer,
)


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
class CircularScores:
    """What circular evaluation says besides the score of questions.

    Attributes:
        vanilla: the same questions by their first turns alone.
        vanilla_types: that by question type.
        turns: rows that were scored.
        incomplete: ids of questions that are left out, because a turn of them is not there.
    """

    vanilla: TypeScore
    vanilla_types: Sequence[TypeScore]
    turns: int
    incomplete: Sequence[str]


@dataclass(frozen=True)
class ColumnScores:
    """Scores by a column of the data other than the question type.

    Attributes:
        column: its name.
        values: by value, in code point order.
        mean: mean of these, each counted once, however many questions it has.
    """

    column: str
    values: Sequence[TypeScore]
    mean: TypeScore


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
        unread: why answers to questions with choices are none of them -> how many; they count as wrong.
        columns: by other columns, in the order asked for; those that no row has are left out.
        circular: only of circular evaluation; `each`, `true_forms` and `given_forms` are of questions then.
        examples: what `each` is of: those that were given, or the first turns of their questions.
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
    unread: Mapping[Unread, int] = field(default_factory=dict)
    columns: Sequence[ColumnScores] = ()
    circular: CircularScores | None = None
    examples: Sequence[Example] | None = None


def score_answers(
    pairs: Iterable[tuple[Example, str]],
    rule: str | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    protocol: str = AUTO,
    points: Mapping[str, RowPoints] | None = None,
    columns: Sequence[str] = (),
) -> AnswerScores:
    """Scores of (example, model's answer).

    Args:
        pairs: examples with the answer a model gave; at least one.
        rule: the normal form; None: each protocol's own (`choose_row_scorer`).
        groups: group -> its question types; a type is in one group at most. A group without rows has no score.
        protocol: by which answers are scored; "auto": each question by the number of its annotators.
        points: of a judge, by id, for a protocol that is judged.
        columns: names of other columns by which scores are wanted.

    Raises:
        SettingsError: an unknown rule or protocol; a judged protocol without points.
        DataError: an example lacks annotations, choices, turns or points, and the protocol needs them.
    """
    score_row = choose_row_scorer(protocol, rule, points)
    group_of = {name: group for group, members in (groups or {}).items() for name in members}
    tallies = _AnswerTallies(group_of, columns)
    unread: Counter[Unread] = Counter()

    def scored_rows() -> Iterator[tuple[Example, RowScore]]:
        for example, answer in pairs:
            row = score_row(example, answer)
            if row.unread:
                unread[row.unread] += 1
            yield example, row

    if protocol != CIRCULAR:
        for example, row in scored_rows():
            tallies.add(example, row)
        return replace(tallies.answer_scores(), unread=unread)
    questions = score_circular_questions(scored_rows())
    first_turns = _AnswerTallies(group_of)
    for (example, row), (_, first_row) in zip(questions.rows, questions.first_rows, strict=True):
        tallies.add(example, row)
        first_turns.add(example, first_row)
    vanilla = first_turns.answer_scores()
    return replace(
        tallies.answer_scores(),
        unread=unread,
        circular=CircularScores(vanilla.total, vanilla.question_types, questions.turns, questions.incomplete),
        examples=[example for example, _ in questions.rows],
    )


class _AnswerTallies:
    """The tallies of all answers: by question type, by group of types, by answer type, and in all.

    Args:
        group_of: question type -> its group.
        columns: names of other columns to count by.
    """

    def __init__(self, group_of: Mapping[str, str], columns: Sequence[str] = ()) -> None:
        # Cached: the same few answers come again and again, and the Korean rules are many regular expressions.
        self._answer_type = cache(answer_type)
        self._group_of = group_of
        self._by_type: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
        self._by_group: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
        self._by_answer_type: dict[str, _ScoreTally] = defaultdict(_ScoreTally)
        self._by_column: dict[str, dict[str, _ScoreTally]] = {
            column: defaultdict(_ScoreTally) for column in columns
        }
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
        for column, by_value in self._by_column.items():
            if (value := example.columns.get(column)) is not None:
                tallies.append(by_value[str(value)])
        for tally in tallies:
            tally.add(example.image, true_scores, row.score, row.weight)
        self._true_forms.append(best)
        self._given_forms.append(row.answer_form)
        self._each.append(row.score)
        # A judge may go by something else than true answers.
        is_scored = bool(true_scores) or row.protocol in JUDGED_PROTOCOLS
        self._unanswered += not is_scored
        self._rules.add(row.rule)
        if is_scored:
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
            columns=[
                _column_scores(column, tallies) for column, tallies in self._by_column.items() if tallies
            ],
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
    image_sums: dict[str, list[float]] = field(default_factory=dict)  # image -> sums of scores, of weights
    rows: int = 0
    binary: bool = True

    def add(self, image: str, true_scores: Mapping[str, float], score: float, weight: float) -> None:
        for answer, true_score in true_scores.items():  # faster than Counter.update, for one or two answers
            self.true_weights[answer] = self.true_weights.get(answer, 0.0) + true_score
        sums = self.image_sums.setdefault(image, [0.0, 0])
        sums[0] += score * weight
        sums[1] += weight
        self.rows += 1
        # Once a score between 0 and 1 has come, Wilson's interval is out (`confidence_intervals`).
        self.binary = self.binary and score in (0.0, 1.0) and weight == 1

    def score(self, name: str, majority: float | None = None) -> TypeScore:
        # Rounded, so that equal sums are seen to be equal and the bootstrap can count them; the score is not.
        images = np.array([[round(total, 9), weight] for total, weight in self.image_sums.values()])
        # fsum: the mean must not depend on the order of the images.
        right, weight = (math.fsum(column) for column in zip(*self.image_sums.values(), strict=True))
        if majority is None:
            majority = max(self.true_weights.values(), default=0.0) / self.rows
        low, high, method = score_interval(images, binary=self.binary)
        return TypeScore(name, self.rows, right / weight, low, high, method, majority)


def _column_scores(column: str, tallies: Mapping[str, _ScoreTally]) -> ColumnScores:
    values = [tallies[value].score(value) for value in sorted(tallies)]
    mean = math.fsum(score.score for score in values) / len(values)
    low, high = mean_of_means_interval([tallies[score.name].image_sums for score in values])
    majority = math.fsum(score.majority for score in values) / len(values)
    rows = sum(score.rows for score in values)
    return ColumnScores(column, values, TypeScore("", rows, mean, low, high, "bootstrap", majority))
