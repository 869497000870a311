"""Options of the commands that have answers judged by a model on a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

if TYPE_CHECKING:
    from kovqa_core.judge.judge_answers import JudgeOptions

JudgeOption = Annotated[
    str | None,
    typer.Option(
        "--judge",
        metavar="URL",
        help="Open answers: a server in OpenAI's form whose model judges them, up to /v1.",
    ),
]
JudgeModelOption = Annotated[
    str | None,
    typer.Option("--judge-model", metavar="NAME", help="Its name there. [default: the server's only one]"),
]
JudgePromptOption = Annotated[
    Path | None,
    typer.Option(
        "--judge-prompt",
        metavar="FILE",
        help="Another prompt, with {question}, {answer} and the set's fields.",
    ),
]


def read_judge_options(url: str | None, model: str | None, prompt: Path | None) -> JudgeOptions | None:
    """Who judges; None: nobody.

    Raises:
        SettingsError: how it is asked is said, and not who.
    """
    if url is None:
        if model or prompt:
            raise SettingsError(
                message("evaluate.no-judge", "--judge-model and --judge-prompt are of a judge, and there is none"),
                message("evaluate.no-judge.hint", "name its server: --judge http://HOST:8000/v1"),
            )  # fmt: skip
        return None
    from kovqa_core.judge.judge_answers import JudgeOptions

    return JudgeOptions(url, model, prompt)
