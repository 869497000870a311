"""Examples for the report: which ones, and their images as small JPEGs in the page."""

from __future__ import annotations

import base64
import io
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kovqa_core.errors import DataError
from kovqa_core.evaluate.answer_scores import AnswerScores
from kovqa_core.evaluate.compare_predictions import PredictionsComparison, row_scores
from kovqa_core.evaluate.evaluation import EvaluationResult

THUMBNAIL_SIDE = 320  # pixels of an image's longer side
_JPEG_QUALITY = 70  # of its JPEG: 5 to 20 kB an image
_MAX_TRUE_TEXTS = 5  # true answers or captions of a card
_CARD_SEED = 0


@dataclass(frozen=True)
class ReportCard:
    """One example.

    Attributes:
        image: its path, relative to the image folder.
        answer: what the model said.
        true_texts: true answers with their scores, best first, or captions; texts to show.
        score: of the answer, 0…1, or the main metric of the caption.
        right: at least half right; of captions: among the better half.
        confidence: of the model, 0…1; None when the predictions do not say.
        other_answer, other_score: of the model that it is compared with; None where there is none.
    """

    id: str
    image: str
    question_type: str
    question: str
    answer: str
    true_texts: Sequence[str]
    score: float
    right: bool
    confidence: float | None
    other_answer: str | None = None
    other_score: float | None = None


def is_right_row(result: EvaluationResult) -> np.ndarray:
    """Of each row: an answer of at least half a point, or a caption of the better half by the main metric; [rows] bool."""
    if isinstance(result.scores, AnswerScores):
        return result.scores.each >= 0.5
    each = result.scores.main.each
    better = np.zeros(len(each), bool)
    # Stable: of equal scores the earlier rows are taken, so the page is the same each time.
    better[np.argsort(-each, kind="stable")[: (len(each) + 1) // 2]] = True
    return better


def choose_cards(result: EvaluationResult, examples: int) -> list[ReportCard]:
    """At most so many right and so many wrong examples, drawn with a fixed seed, in the index's order."""
    right = is_right_row(result)
    chosen = [*_draw_rows(right, examples), *_draw_rows(~right, examples)]
    return [_make_card(result, row, bool(right[row])) for row in sorted(chosen)]


def _draw_rows(rows: np.ndarray, most: int) -> list[int]:
    numbers = np.flatnonzero(rows).tolist()
    return random.Random(_CARD_SEED).sample(numbers, min(most, len(numbers)))


def choose_surest_wrong(result: EvaluationResult, most: int) -> list[ReportCard]:
    """The wrong rows of which the model was surest, the surest first; of captions those of the worse half."""
    right = is_right_row(result)
    confidence = row_confidence(result)
    rows = np.flatnonzero(~right & ~np.isnan(confidence))
    surest = rows[np.argsort(-confidence[rows], kind="stable")[:most]]
    return [_make_card(result, int(row), False) for row in surest]


def choose_least_sure(result: EvaluationResult, most: int) -> list[ReportCard]:
    """The rows of which the model was least sure, the least sure first."""
    right = is_right_row(result)
    confidence = row_confidence(result)
    # NaN, no confidence, comes last in numpy's order.
    rows = np.argsort(confidence, kind="stable")[: min(most, int((~np.isnan(confidence)).sum()))]
    return [_make_card(result, int(row), bool(right[row])) for row in rows]


def choose_won_and_lost(
    comparison: PredictionsComparison, most: int
) -> tuple[list[ReportCard], list[ReportCard], int, int]:
    """Rows that A has right and B wrong, and the reverse: at most so many of each, and how many there are of each.

    Of answers they are drawn with a fixed seed. Captions are not right or wrong: those with the largest difference, of
    all that differ.
    """
    a, b = row_scores(comparison.a), row_scores(comparison.b)
    if isinstance(comparison.a.scores, AnswerScores):
        won, lost = (a >= 0.5) & (b < 0.5), (b >= 0.5) & (a < 0.5)
        chosen = [sorted(_draw_rows(rows, most)) for rows in (won, lost)]
    else:
        won, lost = a > b, b > a
        order = np.argsort(b - a, kind="stable")
        chosen = [
            [int(row) for row in rows if differs[row]][:most]
            for rows, differs in ((order, won), (order[::-1], lost))
        ]
    cards = [
        [
            _with_other_answer(_make_card(comparison.a, row, right), comparison.b, float(b[row]))
            for row in rows
        ]
        for rows, right in zip(chosen, (True, False), strict=True)
    ]
    return cards[0], cards[1], int(won.sum()), int(lost.sum())


def _with_other_answer(card: ReportCard, other: EvaluationResult, score: float) -> ReportCard:
    return replace(card, other_answer=other.predictions.texts[card.id], other_score=score)


def row_confidence(result: EvaluationResult) -> np.ndarray:
    """How sure the model was of every row, in 0…1; NaN where the predictions do not say; [rows]."""
    said = result.predictions.confidence
    return np.array([said.get(example.id, math.nan) for example in result.examples])


def _make_card(result: EvaluationResult, row: int, right: bool, /) -> ReportCard:
    example = result.examples[row]
    if isinstance(result.scores, AnswerScores):
        each = result.scores.each
        answers = sorted(example.answers.items(), key=lambda pair: -pair[1])
        true_texts = [answer if score == 1 else f"{answer} ({score:g})" for answer, score in answers]
    else:
        each, true_texts = result.scores.main.each, list(example.captions)
    return ReportCard(
        id=example.id,
        image=example.image,
        question_type=example.question_type,
        question=example.question,
        answer=result.predictions.texts[example.id],
        true_texts=true_texts[:_MAX_TRUE_TEXTS],
        score=float(each[row]),
        right=right,
        confidence=result.predictions.confidence.get(example.id),
    )


def thumbnail_uri(path: Path) -> str:
    """An image as a data URI; "" for one that cannot be read."""
    from kovqa_core.data.image_io import open_image

    try:
        # A JPEG is decoded at a fraction of its size: most of a report's time goes into this.
        image = open_image(path, 2 * THUMBNAIL_SIDE)
    except DataError:  # the page shows that it is broken
        return ""
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
