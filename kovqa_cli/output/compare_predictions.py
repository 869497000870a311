"""What `kovqa evaluate A --against B` prints: both scores, their difference, and whether it is more than chance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kovqa_core.messages import Message, join_messages, message

from kovqa_cli.output.console import (
    print_json,
    print_note,
    print_result,
    print_text,
    print_warnings,
    short_path,
)
from kovqa_cli.output.evaluate import evaluation_fields, unusable_scores_warnings
from kovqa_cli.output.table import print_table

if TYPE_CHECKING:
    from kovqa_core.evaluate.compare_predictions import PredictionsComparison, TypeComparison
    from kovqa_core.evaluate.paired_tests import McNemarTest


def print_comparison(comparison: PredictionsComparison, *, as_json: bool, quiet: bool) -> None:
    """Two predictions files side by side: a table, one JSON document, or the difference alone."""
    for result in (comparison.a, comparison.b):
        print_warnings(unusable_scores_warnings(result))
    if as_json:
        print_json({**evaluation_fields(comparison.a), "against": comparison_fields(comparison)})
        return
    if quiet:
        print_result(f"{comparison.total.test.difference:+.4f}")
        return
    for name, result in (("A", comparison.a), ("B", comparison.b)):
        print_note(f"{name}: {short_path(result.predictions_path)}")
    _print_comparison_table(comparison)
    print_text(*_conclusions(comparison))


def comparison_fields(comparison: PredictionsComparison) -> dict[str, object]:
    """What the JSON document of `evaluate` has under "against"."""
    mcnemar = comparison.mcnemar
    return {
        "predictions": str(comparison.b.predictions_path),
        "metric": comparison.metric,
        **_row_fields(comparison.total),
        "images": comparison.total.test.images,
        "draws": comparison.total.test.draws,
        "differing_images": comparison.total.test.differing,
        "same_answers": comparison.same_texts,
        "identical": comparison.identical,
        "kinds": [
            {"kind": row.name, **_row_fields(row), "p_holm": row.corrected_p} for row in comparison.question_types
        ],
        "mcnemar": mcnemar
        and {
            "a_only": mcnemar.a_only, "b_only": mcnemar.b_only, "both": mcnemar.both, "neither": mcnemar.neither,
            "unit": "images" if mcnemar.by_images else "rows",
            "a_better": mcnemar.a_better, "b_better": mcnemar.b_better, "p": mcnemar.p,
        },
    }  # fmt: skip


def _row_fields(row: TypeComparison) -> dict[str, object]:
    test = row.test
    return {
        "rows": row.rows, "score_a": row.score_a, "score_b": row.score_b, "difference": test.difference,
        "low": test.low, "high": test.high, "p": test.p,
    }  # fmt: skip


def _print_comparison_table(comparison: PredictionsComparison) -> None:
    """One row a question type; the last one is all."""
    from kovqa_core.evaluate.paired_tests import format_p

    of_captions = comparison.mcnemar is None
    number, scale, unit = (".4f", 1, "") if of_captions else (".1f", 100, "%")
    metric = comparison.metric if of_captions else message("evaluate.score-column", "score")
    rows = []
    for row in [*comparison.question_types, comparison.total]:
        name = row.name or message("evaluate.no-type", "no type")
        if row is comparison.total:
            name = message("evaluate.all-row", "all")
        test = row.test
        rows.append(
            [
                name, f"{row.rows:,}", *(f"{scale * score:{number}}{unit}" for score in (row.score_a, row.score_b)),
                f"{scale * test.difference:+{number}}", f"[{scale * test.low:+{number}}, {scale * test.high:+{number}}]",
                format_p(row.corrected_p),
            ]
        )  # fmt: skip
    print_table(
        [
            (message("evaluate.type-column", "type"), "left"),
            (message("evaluate.rows-column", "rows"), "right", 2),
            (message("evaluate.file-a-column", "{metric} A", metric=metric), "right"),
            (message("evaluate.file-b-column", "{metric} B", metric=metric), "right"),
            ("A − B", "right"),
            (message("evaluate.interval-column", "95 % interval"), "right", 1),
            ("p", "right"),
        ],
        rows,
        _table_caption(comparison),
    )


def _table_caption(comparison: PredictionsComparison) -> str:
    test = comparison.total.test
    caption = message(
        "evaluate.paired-caption",
        "A − B with its interval and p: paired bootstrap over {images:,} images, {draws:,} draws",
        images=test.images, draws=test.draws,
    )  # fmt: skip
    if not test.draws:
        caption = message(
            "evaluate.nothing-drawn",
            "A − B is the same on every image ({images:,}): there is nothing to draw",
            images=test.images,
        )
    if not comparison.question_types:
        return caption
    holm = message(
        "evaluate.holm-caption", "p of the types: after Holm's correction for {types} comparisons",
        types=len(comparison.question_types),
    )  # fmt: skip
    return join_messages("; ", [caption, holm])


def _conclusions(comparison: PredictionsComparison) -> Iterator[Message]:
    """What the numbers come to, a sentence each."""
    from kovqa_core.evaluate.paired_tests import FEW_DIFFERING

    if comparison.identical:
        yield message("evaluate.identical-files", "both files say the same to every row: p = 1")
        return
    yield message(
        "evaluate.same-answers", "same text in {same:,} of {rows:,} rows",
        same=comparison.same_texts, rows=comparison.total.rows,
    )  # fmt: skip
    if comparison.mcnemar is not None:
        yield from _mcnemar_sentences(comparison.mcnemar)
    test = comparison.total.test
    if test.draws and test.differing < FEW_DIFFERING:
        yield message(
            "evaluate.few-images-differ",
            "the two differ on {images:,} images only, too few to go by the bootstrap",
            images=test.differing,
        )
        return
    if test.p < 0.05:
        yield message("evaluate.difference-found", "the difference is more than chance at the 5 % level")
    else:
        yield message("evaluate.no-difference-found", "the difference may be chance at the 5 % level")


def _mcnemar_sentences(test: McNemarTest) -> Iterator[Message]:
    from kovqa_core.evaluate.paired_tests import compare_p

    p_value = compare_p(test.p)
    yield message(
        "evaluate.right-rows", "right by A alone: {a:,}, by B alone: {b:,}, by both: {both:,}, by neither: {neither:,}",
        a=test.a_only, b=test.b_only, both=test.both, neither=test.neither,
    )  # fmt: skip
    if test.by_images:
        yield message(
            "evaluate.mcnemar-images",
            "McNemar over images, as questions about one image are not independent: A has more right on {a:,}, "
            "B on {b:,}, p {p}",
            a=test.a_better, b=test.b_better, p=p_value,
        )  # fmt: skip
    else:
        yield message("evaluate.mcnemar-rows", "McNemar: p {p}", p=p_value)
