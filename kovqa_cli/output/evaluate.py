"""What `kovqa evaluate` prints: scores by question type, or captions metric by metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kovqa_core.errors import list_ids
from kovqa_core.messages import Message, join_messages, message
from kovqa_core.messages.readable_name import readable_name

from kovqa_cli.output.abstention import abstention_fields, print_abstention
from kovqa_cli.output.answers import unusable_scores_text
from kovqa_cli.output.console import (
    print_json,
    print_note,
    print_result,
    print_warnings,
    short_path,
)
from kovqa_cli.output.table import print_table

if TYPE_CHECKING:
    from kovqa_core.evaluate.answer_scores import AnswerScores
    from kovqa_core.evaluate.caption_scores import CaptionScores
    from kovqa_core.evaluate.evaluation import EvaluationResult
    from kovqa_core.evaluate.report import ReportImages


def print_evaluation(
    result: EvaluationResult, *, as_json: bool, quiet: bool, judge: Mapping[str, object] | None = None
) -> None:
    """Scores of a predictions file: a table, one JSON document, or the score alone.

    Args:
        result: the scores.
        as_json, quiet: see `options`.
        judge: of the JSON document, who judged; None: nobody did.
    """
    from kovqa_core.evaluate.answer_scores import AnswerScores

    print_warnings(unusable_scores_warnings(result))
    if as_json:
        print_json({**evaluation_fields(result), **({"judge": judge} if judge else {})})
    elif isinstance(result.scores, AnswerScores):
        if result.benchmark and not quiet:
            print_note(
                message(
                    "evaluate.benchmark-protocol",
                    "the index is of {title}: scored by its protocol, {protocol} (--protocol takes another)",
                    title=result.benchmark.title,
                    protocol=result.protocol,
                )
            )
        _print_answer_scores(result.scores, quiet=quiet)
        if result.abstention is not None and not quiet:
            print_abstention(result.abstention)
    else:
        _print_caption_scores(result.scores, quiet=quiet)


def unusable_scores_warnings(result: EvaluationResult) -> list[str]:
    """That scores of a predictions file count as missing, if some do."""
    ids = result.predictions.unusable_scores
    return [unusable_scores_text(result.predictions_path, ids)] if ids else []


def evaluation_fields(result: EvaluationResult) -> dict[str, object]:
    """The JSON document; its keys stay, as other programs read them."""
    from kovqa_core.evaluate.answer_scores import AnswerScores

    scores = result.scores
    fields = (
        _answer_score_fields(scores) if isinstance(scores, AnswerScores) else _caption_score_fields(scores)
    )
    if result.abstention is not None:
        fields["abstention"] = abstention_fields(result.abstention)
    return {**fields, "unusable_scores": len(result.predictions.unusable_scores)}


def print_report_images(images: ReportImages, *, as_the_index_says: bool) -> None:
    """Where the images of a page come from, if not from where the user said; and those that are not in it."""
    folder = short_path(images.folder)
    if as_the_index_says:
        print_note(
            message(
                "evaluate.report-images", "its images are from {folder}, as the index says", folder=folder
            )
        )
    if images.outside:
        print_warnings(
            [
                message(
                    "evaluate.outside-images",
                    "{count:,} of its examples have an image outside {folder}, not embedded (first: {name}); if all lie "
                    "below one folder: --images DIR",
                    count=len(images.outside), folder=folder, name=readable_name(images.outside[0]),
                )
            ]
        )  # fmt: skip


def _print_answer_scores(scores: AnswerScores, *, quiet: bool) -> None:
    """Scores of answers by question type and answer type."""
    if quiet:
        print_result(f"{scores.total.score:.4f}")
        return
    if scores.unanswered:
        print_note(
            message(
                "evaluate.unanswered",
                "{questions:,} questions have no true answer in the index: they count as wrong",
                questions=scores.unanswered,
            )
        )
    if stored := scores.protocols.get("index"):
        print_note(
            message(
                "evaluate.index-without-annotations",
                "{questions:,} questions are scored by what the index stores: it is of an earlier version, which did "
                "not keep annotators' answers; write it again (kovqa index) to score by the published rule",
                questions=stored,
            )
        )
    for note in answer_notes(scores):
        print_note(note)
    _print_answer_score_table(scores)


def answer_notes(scores: AnswerScores) -> list[Message]:
    """What else people must know about scores of answers: those that name no choice, and turns that are not there."""
    from kovqa_core.evaluate.choice_readers import Unread

    notes = []
    if scores.unread:
        notes.append(
            message(
                "evaluate.unread-answers",
                "{none:,} answers name no choice and {several:,} name more than one: they count as wrong",
                none=scores.unread.get(Unread.NONE, 0),
                several=scores.unread.get(Unread.SEVERAL, 0),
            )
        )
    if scores.circular:
        notes.append(
            message(
                "evaluate.vanilla-score",
                "{questions:,} questions in {turns:,} turns; by the first turn alone: {score:.1%} ({low:.1%} – {high:.1%})",
                questions=scores.total.rows, turns=scores.circular.turns, score=scores.circular.vanilla.score,
                low=scores.circular.vanilla.low, high=scores.circular.vanilla.high,
            )
        )  # fmt: skip
        if incomplete := scores.circular.incomplete:
            notes.append(
                message(
                    "evaluate.incomplete-turns",
                    "{questions:,} questions are left out, because the index lacks a turn of them: {ids}",
                    questions=len(incomplete), ids=list_ids(incomplete),
                )
            )  # fmt: skip
    return notes


def _answer_score_fields(scores: AnswerScores) -> dict[str, object]:
    return {
        "score": scores.total.score,
        "normalise": scores.rule,
        "protocol": next(iter(scores.protocols)) if len(scores.protocols) == 1 else "mixed",
        "protocols": dict(scores.protocols),
        "kinds": [score.json_fields() for score in scores.question_types],
        "groups": [score.json_fields() for score in scores.groups],
        "types": [score.json_fields() for score in scores.types],
        "all": scores.total.json_fields(),
        "unanswered": scores.unanswered,
        **protocol_fields(scores),
    }


def protocol_fields(scores: AnswerScores) -> dict[str, object]:
    """What only some protocols and data sets have; nothing where there is none of it."""
    fields: dict[str, object] = {}
    if scores.unread:
        fields["unread"] = {reason.value: count for reason, count in scores.unread.items()}
    if scores.columns:
        fields["columns"] = {
            each.column: {
                "values": [value.json_fields() for value in each.values],
                "mean": each.mean.json_fields(),
            }
            for each in scores.columns
        }
    if circular := scores.circular:
        fields["circular"] = {
            "turns": circular.turns,
            "incomplete": list(circular.incomplete),
            "vanilla": circular.vanilla.json_fields(),
            "vanilla_kinds": [score.json_fields() for score in circular.vanilla_types],
        }
    return fields


def _print_answer_score_table(scores: AnswerScores) -> None:
    """One row a question type, group of types and answer type; the last one is all questions."""
    rows = [(score.name or message("evaluate.no-type", "no type"), score) for score in scores.question_types]
    rows += [(message("evaluate.group-row", "group {name}", name=s.name), s) for s in scores.groups]
    rows += [
        (message("evaluate.answer-type-row", "answer {name}", name=_answer_type_text(s.name)), s)
        for s in scores.types
    ]
    for each in scores.columns:
        rows += [
            (message("evaluate.column-row", "{column} {value}", column=each.column, value=value.name), value)
            for value in each.values
        ]
        rows.append((message("evaluate.column-mean-row", "mean of {column}", column=each.column), each.mean))
    rows.append((message("evaluate.all-row", "all"), scores.total))
    print_table(
        [
            (message("evaluate.type-column", "type"), "left"),
            (message("evaluate.questions-column", "questions"), "right", 2),
            (message("evaluate.score-column", "score"), "right"),
            (message("evaluate.interval-column", "95 % interval"), "right"),
            (message("evaluate.majority-column", "most frequent"), "right", 1),
        ],
        [
            [name, f"{s.rows:,}", f"{s.score:.1%}", f"{s.low:.1%} – {s.high:.1%}", f"{s.majority:.1%}"]
            for name, s in rows
        ],
        message(
            "evaluate.table-caption",
            "score: {protocols}; answers compared in {rule}; most frequent: always giving the type's commonest answer",
            protocols=_describe_protocols(scores),
            rule=message("evaluate.form-by-protocol", "the protocol's form")
            if scores.rule == "auto"
            else message("evaluate.named-form", "the {rule} form", rule=scores.rule),
        ),
    )


def _answer_type_text(name: str) -> str:
    """A type of VQAv2's answers, in words."""
    match name:
        case "yes/no":
            return message("evaluate.answer-yes-no", "yes/no")
        case "number":
            return message("evaluate.answer-number", "number")
        case "other":
            return message("evaluate.answer-other", "other")
        case _:
            return name


def _describe_protocols(scores: AnswerScores) -> str:
    """By which protocols answers were scored; with the questions of each, where there are several."""
    from kovqa_core.evaluate.protocols import describe_protocol

    if len(scores.protocols) == 1:
        return describe_protocol(next(iter(scores.protocols)))
    parts = [
        message(
            "evaluate.protocol-questions",
            "{protocol} ({questions:,} questions)",
            protocol=describe_protocol(name),
            questions=questions,
        )
        for name, questions in scores.protocols.items()
    ]
    return join_messages(", ", parts)


def _caption_score_fields(scores: CaptionScores) -> dict[str, object]:
    from kovqa_core.evaluate.caption_scores import METRICS_LEFT_OUT
    from kovqa_core.evaluate.caption_tokens import TOKEN_NOTES

    metrics = scores.metrics.values()
    return {
        "score": scores.main.score, "tokens": scores.tokens, "tokens_note": TOKEN_NOTES[scores.tokens],
        "rows": scores.rows,
        "metrics": [{"metric": m.name, "score": m.score, "low": m.low, "high": m.high} for m in metrics],
        "left_out": METRICS_LEFT_OUT,
    }  # fmt: skip


def _print_caption_scores(scores: CaptionScores, *, quiet: bool) -> None:
    """Scores of captions, metric by metric."""
    from kovqa_core.evaluate.caption_scores import METRICS_LEFT_OUT
    from kovqa_core.evaluate.caption_tokens import TOKEN_NOTES

    if quiet:
        print_result(f"{scores.main.score:.4f}")
        return
    print_note(METRICS_LEFT_OUT)
    print_table(
        [
            (message("evaluate.metric-column", "metric"), "left"),
            (message("evaluate.score-column", "score"), "right"),
            (message("evaluate.interval-column", "95 % interval"), "right"),
        ],
        [[m.name, f"{m.score:.4f}", f"{m.low:.4f} – {m.high:.4f}"] for m in scores.metrics.values()],
        message(
            "evaluate.tokens-caption", "tokens: {rule} ({note})",
            rule=scores.tokens, note=TOKEN_NOTES[scores.tokens],
        ),
    )  # fmt: skip
