"""One answer out of several runs' or models' answers to the same question."""

from __future__ import annotations

from collections.abc import Sequence

from kovqa_core.data.example import Answer


def vote(ballots: Sequence[Sequence[Answer]]) -> list[Answer]:
    """The answer most runs give to each question; among equals, the one they are surest of in sum.

    Args:
        ballots: one list of answers a run, all over the same questions in the same order.

    Returns:
        one answer a question; its score is the mean score over all runs, 0 for those that disagree.
    """
    return [_winner(answers) for answers in zip(*ballots, strict=True)]


def _winner(answers: Sequence[Answer]) -> Answer:
    sure: dict[str, list[float]] = {}
    for answer in answers:
        sure.setdefault(answer.text, []).append(answer.score)
    best = max(sure, key=lambda text: (len(sure[text]), sum(sure[text])))
    return Answer(best, sum(sure[best]) / len(answers))
