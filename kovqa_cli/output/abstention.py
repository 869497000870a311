"""What `kovqa evaluate` prints of questions one choice of which means "unknown"."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from kovqa_core.messages import Message, message

from kovqa_cli.output.console import print_note
from kovqa_cli.output.table import print_table

if TYPE_CHECKING:
    from kovqa_core.evaluate.abstention import AbstentionScores, Threshold


def abstention_fields(scores: AbstentionScores) -> dict[str, object]:
    """The JSON document's field `abstention`; null for what is not defined."""
    given = scores.given
    return {
        **{name: _json_number(value) for name, value in asdict(given).items()},
        "balanced_accuracy": _json_number(given.balanced),
        "best": None if scores.best is None else _json_fields(asdict(scores.best)),
        "thresholds": [_json_fields(asdict(threshold)) for threshold in scores.thresholds],
        "unscored": scores.unscored,
    }


def _json_fields(values: dict[str, float]) -> dict[str, float | None]:
    return {name: _json_number(value) for name, value in values.items()}


def _json_number(value: float) -> float | None:
    return None if math.isnan(value) else value


def print_abstention(scores: AbstentionScores) -> None:
    """Balanced accuracy, what thresholds give, and the one that is best."""
    given = scores.given
    print_note(
        message(
            "evaluate.balanced-accuracy",
            "balanced accuracy {balanced} (always or never 'unknown': at most 50.0%): {ambiguous:,} ambiguous rows "
            "{ambiguous_score}, {clear:,} clear rows {clear_score}; {abstained:,} answers are 'unknown'",
            balanced=_percent(given.balanced), ambiguous=given.ambiguous, clear=given.clear,
            ambiguous_score=_percent(given.ambiguous_score), clear_score=_percent(given.clear_score),
            abstained=given.abstained,
        )
    )  # fmt: skip
    if scores.best is None:
        return
    if scores.unscored:
        print_note(
            message("evaluate.unscored-answers", "{rows:,} answers have no score: they never become 'unknown'",
                    rows=scores.unscored)
        )  # fmt: skip
    print_table(
        [
            (message("evaluate.below-column", "unknown below"), "right"),
            (message("evaluate.coverage-column", "answered"), "right"),
            (message("evaluate.answered-column", "of these right"), "right"),
            (message("evaluate.balanced-column", "balanced accuracy"), "right"),
        ],
        [
            [f"{t.below:g}", _percent(t.coverage), _percent(t.answered_score), _percent(t.balanced)]
            for t in scores.thresholds
        ],
        _best_caption(scores, scores.best),
    )  # fmt: skip


def _best_caption(scores: AbstentionScores, best: Threshold) -> Message:
    rows = scores.given.ambiguous + scores.given.clear
    if best.below == 0:
        return message(
            "evaluate.no-better-threshold", "on these {rows:,} rows abstaining gains nothing", rows=rows
        )
    return message(
        "evaluate.best-threshold",
        "best here: kovqa predict --unknown-below {below:g}; chosen by these {rows:,} rows, so that on them it looks "
        "better than on others",
        below=best.below, rows=rows,
    )  # fmt: skip


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}"
