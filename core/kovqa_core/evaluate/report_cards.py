"""Examples for the report: which ones, their pictures as small JPEGs in the page, their HTML."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from kovqa_core.evaluate.answer_scores import AnswerScores
from kovqa_core.evaluate.evaluation import EvaluationResult
from kovqa_core.files import read_bytes

THUMBNAIL_SIDE = 320  # pixels of a picture's longer side
_JPEG_QUALITY = 70  # of its JPEG: 5 to 20 kB a picture
_MAX_TRUE_TEXTS = 5  # true answers or captions of a card
MAX_CARD_LETTERS = 300  # of a text
_CARD_SEED = 0


@dataclass(frozen=True)
class ReportCard:
    """One example.

    Attributes:
        image: path of the picture, relative to the pictures' folder.
        truths: true answers with their scores, best first, or captions; texts to show.
        score: of the answer, 0…1, or CIDEr of the caption.
        right: at least half right; of captions: among the better half.
        confidence: of the model, 0…1; None when the predictions do not say.
    """

    id: str
    image: str
    kind: str
    question: str
    given: str
    truths: Sequence[str]
    score: float
    right: bool
    confidence: float | None


def is_right_row(found: EvaluationResult) -> np.ndarray:
    """Of each row: an answer of at least half a point, or a caption of the better half by CIDEr."""
    if isinstance(found.scores, AnswerScores):
        return found.scores.each >= 0.5
    each = found.scores.metrics["CIDEr"].each
    better = np.zeros(len(each), bool)
    better[np.argsort(-each, kind="stable")[: (len(each) + 1) // 2]] = True
    return better


def choose_cards(found: EvaluationResult, examples: int) -> list[ReportCard]:
    """At most so many right and so many wrong examples, by a fixed lot, in the index's order."""
    right = is_right_row(found)
    lot = random.Random(_CARD_SEED)
    chosen: list[int] = []
    for rows in (np.flatnonzero(right), np.flatnonzero(~right)):
        chosen += lot.sample(rows.tolist(), min(examples, len(rows)))
    return [_make_card(found, row, bool(right[row])) for row in sorted(chosen)]


def _make_card(found: EvaluationResult, row: int, right: bool) -> ReportCard:
    example = found.split[row]
    if isinstance(found.scores, AnswerScores):
        each = found.scores.each
        answers = sorted(example.answers.items(), key=lambda pair: -pair[1])
        truths = [answer if score == 1 else f"{answer} ({score:g})" for answer, score in answers]
    else:
        each, truths = found.scores.metrics["CIDEr"].each, list(example.captions)
    given, confidence = found.given.texts[example.id], found.given.confidence.get(example.id)
    return ReportCard(
        example.id, example.image, example.question_type, example.question, given, truths[:_MAX_TRUE_TEXTS],
        float(each[row]), right, confidence,
    )  # fmt: skip


def thumbnail_uri(path: Path) -> str:
    """A picture as a data URI; "" for one that cannot be read."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(read_bytes(path))) as opened:
            opened.draft(
                "RGB", (2 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE)
            )  # a JPEG is decoded at a fraction of its size
            whole = ImageOps.exif_transpose(opened).convert("RGBA")
    except Exception:  # whatever a broken file does to a decoder, the page shows that it is broken
        return ""
    paper = Image.new("RGB", whole.size, "white")
    paper.paste(whole, mask=whole)
    paper.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    paper.save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def bilingual_label(korean: str, english: str) -> str:
    """A label in both languages, of which the page shows one. Given as HTML."""
    return f'<span lang="ko">{korean}</span><span lang="en">{english}</span>'


def cards_html(
    cards: Sequence[ReportCard],
    images: Path,
    captions: bool,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """The cards, with their pictures."""
    found = []
    for number, card in enumerate(cards, 1):
        found.append(_card_html(card, thumbnail_uri(images / card.image), captions))
        if progress:
            progress(number, len(cards))
    return "\n".join(found)


def _card_html(card: ReportCard, picture: str, captions: bool) -> str:
    name = shorten_html(card.image)
    shown = f'<img src="{picture}" alt="{name}" decoding="async">' if picture else (
        f'<div class="lost"><b>{bilingual_label("그림을 읽을 수 없습니다", "this picture cannot be read")}</b><span>{name}</span></div>'
    )  # fmt: skip
    given = bilingual_label("모델 설명", "Said") if captions else bilingual_label("모델 답", "Answer")
    truth = bilingual_label("사람 설명", "People") if captions else bilingual_label("정답", "Truth")
    texts = ("<br>" if captions else " · ").join(map(shorten_html, card.truths)) or bilingual_label(
        "없음", "none"
    )
    measure = (
        f"CIDEr {card.score:.2f}" if captions else f"{bilingual_label('점수', 'score')} {card.score:.2g}"
    )
    sure = (
        "" if card.confidence is None else f" · {bilingual_label('확신', 'confidence')} {card.confidence:.0%}"
    )
    question = f'<p class="question">{shorten_html(card.question)}</p>' if card.question else ""
    mark = "✓" if card.right else "✗"  # for those who see no difference between green and red
    about = " · ".join(
        filter(None, [f"{mark} {measure}{sure}", shorten_html(card.kind), shorten_html(card.id)])
    )
    return (
        f'<article class="card {"right" if card.right else "wrong"}" data-kind="{shorten_html(card.kind)}">{shown}<div>{question}'
        f'<dl><dt>{given}</dt><dd class="given">{shorten_html(card.given) or "—"}</dd><dt>{truth}</dt><dd>{texts}</dd></dl>'
        f"<small>{about}</small></div></article>"
    )


def shorten_html(text: str, letters: int = MAX_CARD_LETTERS) -> str:
    """A text as HTML, cut where it is too long."""
    return escape(text if len(text) <= letters else text[:letters] + "…")
