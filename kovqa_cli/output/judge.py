"""What `kovqa evaluate --judge` says besides the scores: who judged, how, and what has no verdict."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.messages import message

from kovqa_cli.output.console import print_note, print_warnings, short_path

if TYPE_CHECKING:
    from kovqa_core.judge.judge_answers import JudgedAnswers, JudgeOptions


def print_judged(judged: JudgedAnswers, options: JudgeOptions, verdicts: Path, *, quiet: bool) -> None:
    """Rows without a verdict, always; who judged and where it stands, unless quiet."""
    from kovqa_core.judge.judge_points import rows_without_verdict

    if missing := rows_without_verdict(judged):
        print_warnings(
            [
                message(
                    "judge.rows-without-verdict",
                    "{rows} rows have no verdict and count nowhere (first: id {id}: {problem})",
                    rows=len(missing), id=missing[0].example.id, problem=missing[0].problem,
                )
            ]
        )  # fmt: skip
    if quiet:
        return
    prompt = (
        message("judge.prompt-of-file", "the prompt of {file}", file=short_path(options.prompt))
        if options.prompt
        else message("judge.own-prompt", "kovqa's own prompt")
    )
    print_note(
        message(
            "judge.judged-by", "judged by {judge} with {prompt}; another judge or prompt gives other points",
            judge=judged.judge, prompt=prompt,
        ),
        message(
            "judge.verdict-file", "{asked} new verdicts; all are in {file}",
            asked=judged.asked, file=short_path(verdicts),
        ),
    )  # fmt: skip
    if judged.not_korean:
        print_note(
            message(
                "judge.not-korean", "{rows} answers hold no Korean and get no points (first: id {id})",
                rows=len(judged.not_korean), id=judged.not_korean[0],
            )
        )  # fmt: skip
    if judged.sees_image:
        print_note(
            message(
                "judge.short-reply",
                "a model behind kovqa serve writes few tokens: it was shown the image and asked for points alone",
            )
        )


def judge_fields(judged: JudgedAnswers, options: JudgeOptions, verdicts: Path) -> dict[str, object]:
    """The part of the JSON document that tells one judge's score from another's."""
    from kovqa_core.files import read_bytes
    from kovqa_core.judge.judge_points import rows_without_verdict

    prompt = hashlib.sha256(read_bytes(options.prompt)).hexdigest() if options.prompt else "kovqa"
    return {
        "model": judged.judge,
        "prompt": prompt,
        "sees_image": judged.sees_image,
        "without_verdict": [row.example.id for row in rows_without_verdict(judged)],
        "not_korean": list(judged.not_korean),
        "new_verdicts": judged.asked,
        "verdicts": str(verdicts),
    }
