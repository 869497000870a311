"""kovqa tokenizer: text -> SentencePiece model; what one does to a text."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.messages import message

from kovqa_cli import options

tokenizer_app = typer.Typer(help="Train, extend and look into Korean tokenizers.", no_args_is_help=True)
OutputOption = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help="Model file to write; its card is FILE.json."),
]

AllowLeftOutOption = Annotated[
    bool,
    typer.Option(
        "--allow-left-out", help="Go on though nothing can be learned from more than 10 % of the lines."
    ),
]


@tokenizer_app.command()
def train(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Wikipedia dumps, text files with one sentence a line, tables (their columns of text), or index folders.",
        ),
    ],
    output: OutputOption = Path("tokenizer.model"),
    vocab_size: Annotated[
        int, typer.Option("--vocab-size", min=16, metavar="N", help="Tokens of the model.")
    ] = 10_000,
    coverage: Annotated[
        float,
        typer.Option(
            "--coverage",
            min=0.9,
            max=1.0,
            metavar="N",
            help="Fraction of the characters that become tokens; bytes spell the rest.",
        ),
    ] = 0.9995,
    sentences: Annotated[
        int,
        typer.Option(
            "--sentences",
            min=1,
            metavar="N",
            help="Most lines to train on, drawn from all; memory grows with them.",
        ),
    ] = 5_000_000,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="NAME",
            help="Column of a table to learn from. Repeatable. [default: questions, answers, captions, choices, context]",
        ),
    ] = None,
    allow_left_out: AllowLeftOutOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Train a SentencePiece model.

    Unigram, with byte fallback. A training that was stopped goes on when the same command is run again.
    """
    from kovqa_core.tokenizer.train import train_tokenizer

    from kovqa_cli.output.progress import show_progress
    from kovqa_cli.output.tokenizer import print_trained_tokenizer

    with show_progress(quiet or json) as on_progress, _note_when_stopped(quiet=quiet):
        card = train_tokenizer(
            inputs, output, vocab_size, coverage, sentences, on_progress,
            columns=column or (), allow_left_out=allow_left_out,
        )  # fmt: skip
    print_trained_tokenizer(output, card, as_json=json, quiet=quiet)


@tokenizer_app.command()
def encode(
    tokenizer: Annotated[Path, typer.Option("--tokenizer", metavar="FILE", help="SentencePiece model.")],
    text: Annotated[str | None, typer.Argument(help="Text. [default: the lines of stdin]")] = None,
    pieces: Annotated[bool, typer.Option("--pieces", help="Print tokens instead of ids.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Print the ids of a text, as BEiT-3 reads them.

    Without <s> and </s>; one line for each text.
    """
    from kovqa_core.models.xlmr_tokenizer import load_xlmr_tokenizer

    from kovqa_cli.output.tokenizer import print_encoded_text

    loaded = load_xlmr_tokenizer(tokenizer)
    for line in _read_stdin_lines() if text is None else [text]:
        print_encoded_text(line, loaded.encode(line), loaded.tokenize(line), show_tokens=pieces, as_json=json)


@tokenizer_app.command()
def inspect(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="SentencePiece model.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Another, to stand beside it.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option("--text", metavar="FILE", help="Text file to measure them on.")
    ] = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Show what a model holds and how well it fits a text."""
    from kovqa_core.tokenizer.inspect import inspect_tokenizers

    from kovqa_cli.output.progress import show_progress
    from kovqa_cli.output.tokenizer import print_tokenizers

    with show_progress(quiet or json) as on_progress:
        reports = inspect_tokenizers([model, other] if other else [model], text, on_progress)
    print_tokenizers(reports, as_json=json, quiet=quiet)


@tokenizer_app.command()
def extend(
    old: Annotated[Path, typer.Argument(metavar="FILE", help="SentencePiece model of another language.")],
    source: Annotated[
        Path,
        typer.Option(
            "--with",
            metavar="FILE",
            help="Korean text, dump, table or index to find tokens in, or a Korean model.",
        ),
    ],
    output: OutputOption,
    number: Annotated[int, typer.Option("--pieces", min=1, metavar="N", help="Most tokens to add.")] = 10_000,
    allow_left_out: AllowLeftOutOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Add Korean tokens at the end of a model.

    All other tokens keep their ids, and text without Hangul is encoded as before.
    """
    from kovqa_core.tokenizer.extend import extend_tokenizer

    from kovqa_cli.output.progress import show_progress
    from kovqa_cli.output.tokenizer import print_trained_tokenizer

    with show_progress(quiet or json) as on_progress, _note_when_stopped(quiet=quiet):
        card = extend_tokenizer(old, source, output, number, on_progress, allow_left_out=allow_left_out)
    print_trained_tokenizer(output, card, as_json=json, quiet=quiet)


@contextlib.contextmanager
def _note_when_stopped(*, quiet: bool) -> Iterator[None]:
    from kovqa_cli.output.console import print_note

    try:
        yield
    except KeyboardInterrupt:
        if not quiet:
            print_note(
                message(
                    "tokenizer.stopped",
                    "stopped; the lines cleaned so far are kept → run the same command again to go on",
                )
            )
        raise


def _read_stdin_lines() -> Iterator[str]:
    from kovqa_core.text_encoding import decode_text

    for number, line in enumerate(sys.stdin.buffer, 1):
        yield decode_text(line, "stdin", number).rstrip("\r\n")
