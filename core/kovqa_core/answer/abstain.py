"""Answers of which the model is not sure enough become the row's choice that means "unknown"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.data.example import Answer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message


def abstain(row: QuestionRow, answer: Answer, below: float | None) -> Answer:
    """The answer, or "unknown" in its place.

    Args:
        row: that is answered; without a choice that means "unknown" the answer stays.
        answer: of the model; one without a score (nan) stays.
        below: the score that it must have, 0…1; None: any.
    """
    unknown = row.example.unknown
    if below is None or not unknown or answer.text in (unknown, "") or not answer.score < below:
        return answer
    return replace(answer, text=unknown, abstained_from=answer.text)


def require_unknown_choices(table: Path, rows: Sequence[QuestionRow]) -> None:
    """See that some row has a choice that means "unknown".

    Raises:
        SettingsError: none has.
    """
    if not any(row.example.unknown for row in rows):
        raise SettingsError(
            message(
                "answer.no-unknown-choice",
                "--unknown-below: no row of {table} has a choice that means 'unknown'", table=table,
            ),
            message("answer.no-unknown-choice.hint", "name its column: --column unknown=NAME"),
        )  # fmt: skip
