"""Circular evaluation: a question counts as right where it is answered right in every turn of its choices.

Sources: MMBench (arXiv 2307.06281, section 4.3); docs/sources/benchmarks.md, K16.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kovqa_core.data.circular_rows import CIRCULAR_COLUMN
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError
from kovqa_core.evaluate.protocols import CIRCULAR, RowScore
from kovqa_core.messages import message

ScoredRow = tuple[Example, RowScore]


@dataclass
class CircularQuestions:
    """Questions, and what became of their turns.

    Attributes:
        rows: the first turn of every whole question, with the score of the question.
        first_rows: the same with the score of that turn alone: vanilla accuracy.
        turns: rows of whole questions.
        incomplete: ids of the questions of which a turn is not there. They are left out: a question that was asked in
            fewer turns is easier.
    """

    rows: list[ScoredRow] = field(default_factory=list)
    first_rows: list[ScoredRow] = field(default_factory=list)
    turns: int = 0
    incomplete: list[str] = field(default_factory=list)


def score_circular_questions(scored: Iterable[ScoredRow]) -> CircularQuestions:
    """Scores of questions, from those of their turns.

    A question's answer is its first wrong one, else that of the first turn.

    Args:
        scored: turns in any order, each with its own score.

    Raises:
        DataError: no row is a turn of a question, or no question has all turns.
    """
    turns_of: dict[str, list[ScoredRow]] = {}
    grouped = False
    for example, row in scored:
        question = example.columns.get(CIRCULAR_COLUMN)
        grouped = grouped or question is not None
        turns_of.setdefault(example.id if question is None else str(question), []).append((example, row))
    if not grouped:
        raise DataError(
            message(
                "evaluate.no-turns",
                "no row is a turn of a question (column {column}), which --protocol circular needs",
                column=CIRCULAR_COLUMN,
            ),
            message(
                "evaluate.no-turns.hint", "index the set with kovqa index k-mmbench; or --protocol choice"
            ),
        )
    questions = CircularQuestions()
    for id, turns in turns_of.items():
        _add_question(questions, id, turns)
    if not questions.rows:
        raise DataError(
            message("evaluate.no-whole-question", "no question has all turns of its choices"),
            message("evaluate.no-whole-question.hint", "write the index again, or --protocol choice"),
        )
    return questions


def _add_question(questions: CircularQuestions, id: str, turns: Sequence[ScoredRow]) -> None:
    first = next((turn for turn in turns if turn[0].id == id), None)
    if first is None or len(turns) != len(first[0].choices):
        questions.incomplete.append(id)
        return
    example, row = first
    wrong = next((turn_row for _, turn_row in turns if turn_row.score < 1), None)
    protocol = CIRCULAR if row.protocol else ""
    question_row = (wrong or row)._replace(score=float(wrong is None), protocol=protocol, unread=None)
    questions.rows.append((example, question_row))
    questions.first_rows.append((example, row))
    questions.turns += len(turns)
