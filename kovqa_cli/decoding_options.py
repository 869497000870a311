"""Options on how a question is put and its answer chosen: those of a model that writes freely, or chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import completion

InstructionOption = Annotated[
    str | None,
    typer.Option(
        "--instruction",
        metavar="TEXT",
        help="The line below a question, of a chat model: auto, ko, en, none (for long answers), or any text. "
        "[default: as the model was made: a short answer]",
    ),
]
MaxNewTokensOption = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens",
        min=1,
        max=32768,
        metavar="N",
        help="Tokens of a chat model's text at most. [default: as the model was made: 16, of a caption 64]",
    ),
]
TopKOption = Annotated[
    int,
    typer.Option(
        "--top-k",
        metavar="N",
        min=1,
        help="So many of the likeliest answers with their probabilities: of a classifier, or out of a list.",
    ),
]
AnswerListOption = Annotated[
    Path | None,
    typer.Option(
        "--answers",
        metavar="FILE",
        help="Answer from a list only, by likelihood: one a line, or an index. Vision language models.",
    ),
]
ChoicesOption = Annotated[
    bool,
    typer.Option("--choices", help="Answer with one of the row's choices (columns choices, or A, B, …)."),
]
ChoicesByOption = Annotated[
    str | None,
    typer.Option(
        "--choices-by",
        metavar="NAME",
        help="With --choices: by the likelihood of their letters, or of each whole text. letter, text. "
        "[default: letter]",
        autocompletion=completion.complete_choice_score,
    ),
]
CalibrateOption = Annotated[
    bool,
    typer.Option(
        "--calibrate", help="With --choices: beside their likelihood for an empty image. Takes twice as long."
    ),
]
UnknownBelowOption = Annotated[
    float | None,
    typer.Option(
        "--unknown-below",
        metavar="P",
        min=0.0,
        max=1.0,
        help="With --input: an answer of a lower score becomes the row's choice that means 'unknown' (column unknown, "
        "or by its wording). `kovqa evaluate` proposes P.",
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        metavar="N",
        min=0.0,
        help="Sample answers: 0.7 is usual. [default: the likeliest]",
    ),
]
SamplingSeedOption = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", help="Of --temperature: same seed, same answers."),
]
