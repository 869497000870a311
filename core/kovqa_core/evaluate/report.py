"""One HTML page about an evaluation: scores, what errs and why, right and wrong examples with images.

The page is whole in itself: images are small JPEGs inside it, fonts are the reader's own, and its policy
forbids every request and every script but its own. Its size is bounded: so many examples, question types,
answers and letters as stated below and in `report_cards`. Words and layout stand in `report.html` and the
templates that it includes (`web/page_template.py`); here are the numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kovqa_core import __version__
from kovqa_core.data.image_names import is_inside
from kovqa_core.errors import DataError
from kovqa_core.evaluate.answer_scores import AnswerScores, TypeScore
from kovqa_core.evaluate.answer_statistics import (
    answer_distribution,
    count_training_answers,
    hidden_pairs,
    score_by_training_count,
)
from kovqa_core.evaluate.calibration import CALIBRATION_BINS, measure_calibration
from kovqa_core.evaluate.caption_scores import METRICS_LEFT_OUT, CaptionScores
from kovqa_core.evaluate.compare_predictions import PredictionsComparison, TypeComparison
from kovqa_core.evaluate.confidence_intervals import BOOTSTRAP_DRAWS
from kovqa_core.evaluate.evaluation import EvaluationResult, report_rows
from kovqa_core.evaluate.model_source import ModelSource
from kovqa_core.evaluate.paired_tests import FEW_DIFFERING, compare_p, format_p
from kovqa_core.evaluate.report_cards import (
    ReportCard,
    choose_cards,
    choose_least_sure,
    choose_surest_wrong,
    choose_won_and_lost,
    is_right_row,
    row_confidence,
    thumbnail_uri,
)
from kovqa_core.evaluate.report_charts import draw_calibration, draw_learning_curve
from kovqa_core.files import write_text
from kovqa_core.index.reader import IndexSplit, table_image_folder
from kovqa_core.messages import message
from kovqa_core.output_lock import output_lock
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.web.page_template import render_page

MAX_TABLE_TYPES = 60  # question types in a table: those with the most questions
MAX_CONFUSED_ANSWERS = 12  # true answers in the table of confusions
MAX_HIDDEN_PAIRS = 15  # confused pairs that this table does not show
MAX_DISTRIBUTION_ANSWERS = 20  # answers of the distribution
MAX_UNSEEN_ANSWERS = 12  # answers named that training never saw
MAX_COMMON_CAPTIONS = 10
MAX_LISTED_SCORES = 200  # validation scores in a table: the last ones
MAX_PICKED_CARDS = (
    8  # of the surest errors, of the least sure, and of what A has right and B wrong, and the reverse
)
_TEMPLATE_FILE = Path(__file__).with_suffix(".html")
_NO_SOURCE = ModelSource()


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
    source: ModelSource = _NO_SOURCE,
    comparison: PredictionsComparison | None = None,
) -> ReportImages:
    """Write the page, whole or not at all.

    Args:
        result: what to show.
        path: the HTML file.
        images: the image folder; None: as the index says. An image that cannot be read becomes a placeholder, as does
            one outside this folder: a page is shown to others, and an index may be another's.
        examples: at most so many right ones and so many wrong ones; each takes 5 to 30 kB. Of the other cards there are
            at most as many, and at most `MAX_PICKED_CARDS` of a kind.
        source: what gave the answers.
        comparison: of `result` with another file's, to be shown, too.

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
    picked = min(examples, MAX_PICKED_CARDS)
    cards = {
        "cards": choose_cards(result, examples),
        "surest_cards": choose_surest_wrong(result, picked),
        "unsure_cards": choose_least_sure(result, picked),
    }
    against: dict[str, object] = {}
    if comparison is not None:
        won, lost, against["won_rows"], against["lost_rows"] = choose_won_and_lost(comparison, picked)
        cards |= {"won_cards": won, "lost_cards": lost}
        against |= _type_comparisons(comparison)
    all_cards = [card for group in cards.values() for card in group]
    outside = list(dict.fromkeys(card.image for card in all_cards if not is_inside(folder, card.image)))
    thumbnails = _read_thumbnails(folder, all_cards, on_progress)
    scores, right = result.scores, is_right_row(result)
    page = render_page(
        _TEMPLATE_FILE,
        result=result, scores=scores, of_captions=isinstance(scores, CaptionScores), draws=BOOTSTRAP_DRAWS,
        metrics_left_out=METRICS_LEFT_OUT, version=__version__, source=source, comparison=comparison,
        curve_charts=draw_learning_curve(source), max_listed_scores=MAX_LISTED_SCORES, format_p=format_p,
        compare_p=compare_p,
        few_differing=FEW_DIFFERING,
        outside=frozenset(outside), right_rows=int(right.sum()), rows=len(right), examples=examples,
        question_types=sorted({card.question_type for card in cards["cards"]}),
        **{name: [(card, thumbnails[card.image]) for card in group] for name, group in cards.items()},
        **against,
        **_confidence_values(result),
        **(_answer_tables(scores) if isinstance(scores, AnswerScores) else _caption_tables(result)),
        **(_training_values(result, scores, on_progress) if isinstance(scores, AnswerScores) else {}),
    )  # fmt: skip
    with output_lock(path):
        write_text(path, page)
    return ReportImages(folder, outside)


def _read_thumbnails(folder: Path, cards: Sequence[ReportCard], on_progress: OnProgress) -> dict[str, str]:
    """The cards' images as data URIs, by their names; each image is read once."""
    stage = message("evaluate.reading-images", "reading images")
    names = list(dict.fromkeys(card.image for card in cards))
    thumbnails = {}
    for number, name in enumerate(names, 1):
        thumbnails[name] = thumbnail_uri(folder / name) if is_inside(folder, name) else ""
        on_progress(Progress(stage, number, len(names), "images"))
    return thumbnails


def _confidence_values(result: EvaluationResult) -> dict[str, object]:
    """How sure the model was, beside how it scored."""
    confidence = row_confidence(result)
    known = ~np.isnan(confidence)
    values: dict[str, object] = {"has_confidence": bool(known.any())}
    if isinstance(result.scores, AnswerScores):
        calibration = measure_calibration(confidence, result.scores.each)
        unusable = frozenset(result.predictions.unusable_scores)
        values |= {
            "calibration": calibration,
            "calibration_bins": CALIBRATION_BINS,
            "unusable": sum(example.id in unusable for example in result.examples) if unusable else 0,
        }
        if calibration.rows:
            values |= {
                "mean_confidence": float(confidence[known].mean()),
                "confident_score": float(result.scores.each[known].mean()),
                "calibration_chart": draw_calibration(calibration),
            }
    return values


def _answer_tables(scores: AnswerScores) -> dict[str, object]:
    """The tables of an evaluation of answers: question types, answers, confused answers."""
    most_asked = sorted(scores.question_types, key=lambda score: -score.rows)[:MAX_TABLE_TYPES]
    names, lines = _confusion_table(scores.confusion)
    pairs = hidden_pairs(scores, frozenset(names))
    distribution = answer_distribution(scores, MAX_DISTRIBUTION_ANSWERS)
    return {
        "unread_count": sum(scores.unread.values()),
        "types_left_out": len(scores.question_types) - len(most_asked),
        "type_scores": sorted(most_asked, key=_type_name),
        "confused_answers": names,
        "confusion_lines": lines,
        "hidden": pairs[:MAX_HIDDEN_PAIRS],
        "hidden_count": len(pairs),
        "hidden_rows": sum(pair.rows for pair in pairs),
        "distribution": distribution,
        "most_rows": max(max(count.true_rows, count.given_rows) for count in distribution.counts),
        "max_unseen": MAX_UNSEEN_ANSWERS,
    }


def _training_values(
    result: EvaluationResult, scores: AnswerScores, on_progress: OnProgress
) -> dict[str, object]:
    """Scores by how often the training split beside the index has the answer; why not, where that is not known."""
    path = result.index_path.with_name("train.jsonl")
    if not path.is_file():
        return {"training": None, "training_gap": "none"}
    stage = message("evaluate.reading-training", "reading train.jsonl")
    try:
        split = IndexSplit(path)
        rows = report_rows(split, stage, on_progress)
        seen, training_rows = count_training_answers(rows, result.rule, result.protocol)
    except DataError:
        return {"training": None, "training_gap": "unreadable"}
    return {
        "training": score_by_training_count(scores, seen, training_rows),
        "training_gap": "",
        "scored_training": path.resolve() == result.index_path.resolve(),
    }


def _caption_tables(result: EvaluationResult) -> dict[str, object]:
    """The captions that the model gives to several images."""
    times = Counter(result.predictions.texts[example.id] for example in result.examples)
    repeated = [(text, rows) for text, rows in times.most_common() if rows > 1]
    return {
        "different_captions": len(times),
        "repeated_captions": len(repeated),
        "common_captions": repeated[:MAX_COMMON_CAPTIONS],
    }


def _type_comparisons(comparison: PredictionsComparison) -> dict[str, object]:
    """Two models' scores of the question types that fit."""
    most_asked = sorted(comparison.question_types, key=lambda row: -row.rows)[:MAX_TABLE_TYPES]
    return {
        "against_types": sorted(most_asked, key=_type_name),
        "against_left_out": len(comparison.question_types) - len(most_asked),
    }


def _type_name(score: TypeScore | TypeComparison) -> str:
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
