"""Balanced accuracy, and the score below which to answer "unknown": against trying every score."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import pytest
from kovqa_core.data.example import Example
from kovqa_core.evaluate.abstention import score_abstention

CHOICES = ("갑", "알 수 없음", "을")
UNKNOWN = CHOICES[1]


def row(id: str, true: str, choices: Sequence[str] = CHOICES, unknown: str = UNKNOWN) -> Example:
    return Example(id, "a.png", "누구?", {true: 1.0} if true else {}, choices=choices, unknown=unknown)


def balanced(rows: Sequence[Example], answers: Mapping[str, str]) -> float:
    """By its definition, row by row."""
    parts: tuple[list[bool], list[bool]] = ([], [])
    for example in rows:
        true = next(iter(example.answers))
        parts[true == UNKNOWN].append(answers[example.id] == true)
    return sum(sum(part) / len(part) for part in parts) / 2


@pytest.mark.parametrize("seed", range(40))
def test_the_best_threshold_is_found_as_by_trying_all(seed: int) -> None:
    """Scores repeat, some are missing, some are 0 or 1; and what a threshold gives is what abstaining gives."""
    draw = random.Random(seed)
    rows = [row(f"q{n}", draw.choice(CHOICES)) for n in range(draw.choice([3, 8, 60]))]
    rows += [row("x", UNKNOWN), row("y", "갑")]
    answers = {example.id: draw.choice([*CHOICES, "갑"]) for example in rows}
    grid = draw.choice([3, 10, 10**6])
    scores = {
        id: round(draw.randint(0, grid) / grid, 6) for id in answers if draw.random() < 0.9 or id == "x"
    }
    found = score_abstention(rows, answers, scores)
    assert found is not None and found.best is not None

    def abstain(below: float) -> dict[str, str]:
        return {id: UNKNOWN if scores.get(id, math.inf) < below else answer for id, answer in answers.items()}

    assert found.given.balanced == pytest.approx(balanced(rows, answers))
    for threshold in found.thresholds:
        given = abstain(threshold.below)
        answered = [example for example in rows if given[example.id] != UNKNOWN]
        assert threshold.balanced == pytest.approx(balanced(rows, given))
        assert threshold.coverage == pytest.approx(len(answered) / len(rows))
        if answered:
            right = sum(given[example.id] in example.answers for example in answered)
            assert threshold.answered_score == pytest.approx(right / len(answered))
        else:
            assert math.isnan(threshold.answered_score)
    tried = [balanced(rows, abstain(below)) for below in {0.0, 1.0, *scores.values()}]
    assert found.best.balanced == pytest.approx(max(tried))
    lower = [below for below in {0.0, *scores.values()} if below < found.best.below]
    assert all(balanced(rows, abstain(below)) < found.best.balanced + 1e-9 for below in lower)
    assert found.unscored == len(rows) - len(scores)


def test_rows_without_an_unknown_choice_or_a_true_answer_are_passed_over() -> None:
    """Letters name choices, too; and thresholds are chosen by what was answered before abstaining."""
    rows = [row("1", UNKNOWN), row("2", "을"), row("3", ""), row("4", "갑", ("갑", "을"), "")]
    answers = {"1": "B", "2": UNKNOWN, "3": "갑", "4": "갑"}
    found = score_abstention(rows, answers, {"1": 0.9, "2": 0.6}, {"2": "을"})
    assert found is not None and found.best is not None
    assert (found.given.ambiguous, found.given.clear, found.given.abstained) == (1, 1, 2)
    assert (found.given.balanced, found.best.balanced, found.best.below) == (0.5, 1.0, 0.0)
    assert score_abstention(rows[3:], answers, {}) is None
    alone = score_abstention(rows[:1], answers, {"1": 0.5})
    assert alone is not None and alone.best is None and math.isnan(alone.given.balanced)
    unscored = score_abstention(rows[:2], answers, {})
    assert unscored is not None and unscored.best is None and unscored.given.balanced == 0.5
