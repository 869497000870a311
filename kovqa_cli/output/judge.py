"""What `kovqa evaluate --judge` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.messages import message

from kovqa_cli.output.console import print_json, print_note, print_result, print_table, print_warnings

if TYPE_CHECKING:
    from kovqa_core.judge.judge_answers import JudgeOptions
    from kovqa_core.judge.judge_scores import JudgeScore, JudgeScores


def print_judge_scores(
    scores: JudgeScores, options: JudgeOptions, verdicts: Path, *, as_json: bool, quiet: bool
) -> None:
    """A judge's scores: a table, one JSON document, or the score alone."""
    judged = scores.judged
    if scores.without_verdict:
        first = scores.without_verdict[0]
        print_warnings(
            [
                message(
                    "judge.rows-without-verdict",
                    "{rows} rows have no verdict and count nowhere (first: id {id}: {problem})",
                    rows=len(scores.without_verdict), id=first.example.id, problem=first.problem,
                )
            ]
        )  # fmt: skip
    if as_json:
        print_json(judge_score_fields(scores, options, verdicts))
        return
    if quiet:
        print_result(f"{scores.total.score:.2f}")
        return
    if judged.not_korean:
        print_note(
            message(
                "judge.not-korean",
                "{rows} answers hold no Korean and count 0 (first: id {id})",
                rows=len(judged.not_korean), id=judged.not_korean[0],
            )
        )  # fmt: skip
    if judged.sees_image:
        print_note(
            message(
                "judge.short-reply",
                "a model behind kovqa serve writes a few tokens: it was shown the image and asked for points alone",
            )
        )
    print_note(
        message(
            "judge.verdict-file", "{asked} new verdicts; all are in {file}", asked=judged.asked, file=verdicts
        )
    )
    rows = [(score.name or message("evaluate.no-type", "no type"), score) for score in scores.categories]
    rows.append((message("evaluate.all-row", "all"), scores.total))
    print_table(
        [
            (message("evaluate.type-column", "type"), "left"),
            (message("evaluate.questions-column", "questions"), "right"),
            (message("evaluate.score-column", "score"), "right"),
            (message("evaluate.interval-column", "95 % interval"), "right"),
        ],
        [[name, f"{s.rows:,}", f"{s.score:.1f}", f"{s.low:.1f} – {s.high:.1f}"] for name, s in rows],
        message(
            "judge.table-caption",
            "points of 100 that {judge} gave ({protocol}, {prompt}); another judge gives others",
            judge=judged.judge, protocol=judged.protocol, prompt=_prompt_name(options),
        ),
    )  # fmt: skip


def judge_score_fields(scores: JudgeScores, options: JudgeOptions, verdicts: Path) -> dict[str, object]:
    """The JSON document."""
    judged = scores.judged
    return {
        "score": scores.total.score,
        "protocol": judged.protocol,
        "judge": judged.judge,
        "judge_prompt": str(options.prompt) if options.prompt else "kovqa",
        "judge_sees_image": judged.sees_image,
        "kinds": [_score_fields(score) for score in scores.categories],
        "all": _score_fields(scores.total),
        "without_verdict": [row.example.id for row in scores.without_verdict],
        "not_korean": list(judged.not_korean),
        "new_verdicts": judged.asked,
        "verdicts": str(verdicts),
    }


def _score_fields(score: JudgeScore) -> dict[str, object]:
    return {
        "kind": score.name, "rows": score.rows, "score": score.score, "low": score.low, "high": score.high,
    }  # fmt: skip


def _prompt_name(options: JudgeOptions) -> str:
    if options.prompt:
        return message("judge.prompt-of-file", "prompt {file}", file=options.prompt.name)
    return message("judge.own-prompt", "kovqa's prompt")
