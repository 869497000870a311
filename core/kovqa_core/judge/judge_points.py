"""A judge's verdicts -> the points that `kovqa evaluate` scores by."""

from __future__ import annotations

from collections.abc import Sequence

from kovqa_core.data.left_out import are_too_many, too_many_left_out
from kovqa_core.evaluate.protocols import RowPoints
from kovqa_core.judge.judge_answers import JudgedAnswers, JudgedRow
from kovqa_core.judge.judge_prompts import MOST_POINTS, Verdict
from kovqa_core.messages import message


def verdict_points(judged: JudgedAnswers) -> dict[str, RowPoints]:
    """The points of the rows that have a verdict, by id.

    Raises:
        DataError: more than 10 % of the rows have none.
    """
    missing = rows_without_verdict(judged)
    if are_too_many(len(missing), len(judged.rows)):
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
    return {row.example.id: _row_points(row.verdict) for row in judged.rows if row.verdict is not None}


def rows_without_verdict(judged: JudgedAnswers) -> Sequence[JudgedRow]:
    """The rows that the judge refused, or of which its reply holds no points: they count nowhere."""
    return [row for row in judged.rows if row.verdict is None]


def _row_points(verdict: Verdict) -> RowPoints:
    out_of = MOST_POINTS if verdict.reference_points is None else verdict.reference_points
    return RowPoints(verdict.points, out_of)
