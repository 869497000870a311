"""One HTML page about an evaluation: scores, confused answers, right and wrong examples with images.

The page is whole in itself: images are small JPEGs inside it, fonts are the reader's own, and its policy
forbids every request and every script but its own. Its size is bounded: so many examples, question types,
answers and letters as stated below and in `report_cards`. Words and layout stand in `report.html`
(`web/page_template.py`); here are the numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.image_names import is_inside
from kovqa_core.errors import DataError
from kovqa_core.evaluate.answer_scores import AnswerScores, TypeScore
from kovqa_core.evaluate.caption_scores import METRICS_LEFT_OUT, CaptionScores
from kovqa_core.evaluate.confidence_intervals import BOOTSTRAP_DRAWS
from kovqa_core.evaluate.evaluation import EvaluationResult
from kovqa_core.evaluate.report_cards import (
    ReportCard,
    choose_cards,
    is_right_row,
    thumbnail_uri,
)
from kovqa_core.files import write_text
from kovqa_core.index.reader import table_image_folder
from kovqa_core.messages import message
from kovqa_core.output_lock import output_lock
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.web.page_template import render_page

MAX_TABLE_TYPES = 60  # question types in the table: those with the most questions
MAX_CONFUSED_ANSWERS = 12  # true answers in the table of confusions
_TEMPLATE_FILE = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class ConfusionCell:
    """How many rows with one true answer got one answer of the model.

    Attributes:
        rows: so many.
        share: of the rows with that true answer, in 0…1: how dark the cell is.
        same: the diagonal: the answer is the true one.
    """

    rows: int
    share: float
    same: bool


@dataclass(frozen=True)
class ReportImages:
    """The images of a page.

    Attributes:
        folder: where they were read.
        outside: names of images of its examples that lead out of that folder: they are not in the page.
    """

    folder: Path
    outside: Sequence[str]


def write_report(
    result: EvaluationResult,
    path: Path,
    images: Path | None,
    examples: int,
    on_progress: OnProgress = ignore_progress,
) -> ReportImages:
    """Write the page, whole or not at all.

    Args:
        result: what to show.
        path: the HTML file.
        images: the image folder; None: as the index says. An image that cannot be read becomes a placeholder, as does
            one outside this folder: a page is shown to others, and an index may be another's.
        examples: at most so many right ones and so many wrong ones; each takes 5 to 30 kB.

    Raises:
        DataError: the image folder does not exist.
        SettingsError, MachineError: the file cannot be written.
    """
    folder = images or table_image_folder(result.index_path)
    if not folder.is_dir():
        raise DataError(
            message("evaluate.no-image-folder", "there is no image folder {folder}", folder=folder),
            message("evaluate.no-image-folder.hint", "name it with --images DIR"),
        )
    right = is_right_row(result)
    cards = choose_cards(result, examples)
    outside = [card.image for card in cards if not is_inside(folder, card.image)]
    thumbnails = _read_thumbnails(folder, cards, on_progress)
    scores = result.scores
    page = render_page(
        _TEMPLATE_FILE,
        result=result,
        scores=scores,
        of_captions=isinstance(scores, CaptionScores),
        draws=BOOTSTRAP_DRAWS,
        metrics_left_out=METRICS_LEFT_OUT,
        cards=list(zip(cards, thumbnails, strict=True)),
        outside=frozenset(outside),
        right_rows=int(right.sum()),
        rows=len(right),
        examples=examples,
        question_types=sorted({card.question_type for card in cards}),
        **(_answer_tables(scores) if isinstance(scores, AnswerScores) else {}),
    )
    with output_lock(path):
        write_text(path, page)
    return ReportImages(folder, outside)


def _read_thumbnails(folder: Path, cards: Sequence[ReportCard], on_progress: OnProgress) -> list[str]:
    """The cards' images as data URIs."""
    stage = message("evaluate.reading-images", "reading images")
    thumbnails = []
    for number, card in enumerate(cards, 1):
        thumbnails.append(thumbnail_uri(folder / card.image) if is_inside(folder, card.image) else "")
        on_progress(Progress(stage, number, len(cards), "images"))
    return thumbnails


def _answer_tables(scores: AnswerScores) -> dict[str, object]:
    """The tables of an evaluation of answers: the question types that fit, and the confused answers."""
    most_asked = sorted(scores.question_types, key=lambda score: -score.rows)[:MAX_TABLE_TYPES]
    names, lines = _confusion_table(scores.confusion)
    return {
        "types_left_out": len(scores.question_types) - len(most_asked),
        "type_scores": sorted(most_asked, key=_type_name),
        "confused_answers": names,
        "confusion_lines": lines,
    }


def _type_name(score: TypeScore) -> str:
    return score.name


def _confusion_table(
    pairs: Counter[tuple[str, str]],
) -> tuple[Sequence[str], Sequence[tuple[str, Sequence[ConfusionCell]]]]:
    """The most frequent true answers, and of each the rows that got each of them; the last cell is all others."""
    true_rows: Counter[str] = Counter()
    for (true_answer, _), rows in pairs.items():
        true_rows[true_answer] += rows
    names = [answer for answer, _ in true_rows.most_common(MAX_CONFUSED_ANSWERS)]
    lines = []
    for true_answer in names:
        counts = [pairs[true_answer, answer] for answer in names]
        # The last column: answers that are none of the names in the table.
        counts.append(true_rows[true_answer] - sum(counts))
        cells = [
            ConfusionCell(rows, rows / true_rows[true_answer], answer == true_answer)
            for answer, rows in zip([*names, None], counts, strict=True)
        ]
        lines.append((true_answer, cells))
    return names, lines
