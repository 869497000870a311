"""A judge's verdicts on a set -> its score, 0 to 100, by category and in all, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kovqa_core.data.left_out import are_too_many, too_many_left_out
from kovqa_core.evaluate.confidence_intervals import bootstrap_sums, percentile_interval
from kovqa_core.judge.judge_answers import JudgedAnswers, JudgedRow
from kovqa_core.judge.judge_prompts import MOST_POINTS
from kovqa_core.messages import message


@dataclass(frozen=True)
class JudgeScore:
    """The score of some rows.

    Attributes:
        name: of their category; "" of all.
        rows: that have a verdict.
        score: 0 to 100; of `reference-judge` the share of the references' points, which may be more.
        low, high: its 95 % interval: images are drawn with all their rows.
    """

    name: str
    rows: int
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class JudgeScores:
    """The scores of a set.

    Attributes:
        judged: by whom, how, and each row's verdict.
        total: of all rows.
        categories: by question type, in alphabetical order; none where there is one type only.
        without_verdict: rows that the judge refused, or whose reply holds no points: they count nowhere.
    """

    judged: JudgedAnswers
    total: JudgeScore
    categories: Sequence[JudgeScore]
    without_verdict: Sequence[JudgedRow]


def score_verdicts(judged: JudgedAnswers, *, allow_left_out: bool = False) -> JudgeScores:
    """The scores of a judged set.

    Raises:
        DataError: more than 10 % of the rows have no verdict.
    """
    rows = [row for row in judged.rows if row.verdict is not None]
    missing = [row for row in judged.rows if row.verdict is None]
    if not rows or (are_too_many(len(missing), len(judged.rows)) and not allow_left_out):
        reason = message(
            "judge.without-verdict",
            "no verdict of {judge} (first: id {id}: {problem})",
            judge=judged.judge,
            id=missing[0].example.id,
            problem=missing[0].problem,
        )
        hint = message(
            "judge.without-verdict.hint", "choose another judge, or another prompt with --judge-prompt"
        )
        raise too_many_left_out(len(missing), len(judged.rows), reason, hint)
    names = sorted({row.example.question_type for row in rows})
    categories = [
        _score_rows(name, [row for row in rows if row.example.question_type == name]) for name in names
    ]
    return JudgeScores(judged, _score_rows("", rows), categories if len(names) > 1 else [], missing)


def _score_rows(name: str, rows: Sequence[JudgedRow]) -> JudgeScore:
    """Points over the most that there were, or over those of the reference answers."""
    sums: dict[str, list[float]] = {}
    for row in rows:
        assert row.verdict is not None
        most = MOST_POINTS if row.verdict.reference_points is None else row.verdict.reference_points
        points = sums.setdefault(row.example.image, [0.0, 0.0])
        points[0] += row.verdict.points
        points[1] += most
    images = np.array(list(sums.values()))  # [images, 2]
    total, draws = images.sum(axis=0), bootstrap_sums(images)
    low, high = percentile_interval(draws[:, 0] / draws[:, 1])
    return JudgeScore(name, len(rows), 100 * total[0] / total[1], 100 * low, 100 * high)
