"""kovqa tokenizer: text -> SentencePiece model; what one does to a text."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options

tokenizer_app = typer.Typer(help="Korean tokenizers.", no_args_is_help=True)
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="Model file to write; its card is FILE.json.")
]


@tokenizer_app.command()
def train(
    inputs: Annotated[
        list[Path], typer.Argument(help="Wikipedia dumps, or text files with one sentence a line.")
    ],
    output: OutputOption = Path("tokenizer.model"),
    vocab_size: Annotated[int, typer.Option("--vocab-size", min=16, help="Pieces.")] = 10_000,
    coverage: Annotated[
        float,
        typer.Option(
            "--coverage", min=0.9, max=1.0, help="Share of the characters to be pieces; bytes spell the rest."
        ),
    ] = 0.9995,
    sentences: Annotated[
        int,
        typer.Option(
            "--sentences", min=1, help="Most lines to train on, drawn from all; memory grows with them."
        ),
    ] = 5_000_000,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Train a SentencePiece model (unigram, byte fallback). What was stopped goes on when run again."""
    from kovqa_core.tokenizer.train import train_tokenizer

    from kovqa_cli.output import progress
    from kovqa_cli.output import tokenizer as output_tokenizer

    with progress.stage_status(quiet or json) as told, _note_when_stopped(quiet):
        card = train_tokenizer(inputs, output, vocab_size, coverage, sentences, told)
    output_tokenizer.print_trained_tokenizer(output, card, json, quiet)


@tokenizer_app.command()
def encode(
    tokenizer: Annotated[Path, typer.Option("--tokenizer", help="SentencePiece model.")],
    text: Annotated[str | None, typer.Argument(help="Text. [default: the lines of stdin]")] = None,
    pieces: Annotated[bool, typer.Option("--pieces", help="Pieces in place of ids.")] = False,
    json: options.JsonOption = False,
) -> None:
    """The ids BEiT-3 reads, without <s> and </s>; one line for each text."""
    from kovqa_core.models.xlmr_tokenizer import load_xlmr_tokenizer

    from kovqa_cli.output import tokenizer as output_tokenizer

    loaded = load_xlmr_tokenizer(tokenizer)
    for line in _read_stdin_lines() if text is None else [text]:
        output_tokenizer.print_encoded_text(line, loaded.encode(line), loaded.pieces(line), pieces, json)


@tokenizer_app.command()
def inspect(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="SentencePiece model.")],
    other: Annotated[Path | None, typer.Argument(help="Another, to stand beside it.")] = None,
    text: Annotated[Path | None, typer.Option("--text", help="Text file to measure them on.")] = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """What a model holds and how well it fits a text."""
    from kovqa_core.tokenizer import inspect as tokenizer_inspect

    from kovqa_cli.output import progress
    from kovqa_cli.output import tokenizer as output_tokenizer

    with progress.stage_status(quiet or json) as told:
        reports = tokenizer_inspect.inspect_tokenizers([model, other] if other else [model], text, told)
    output_tokenizer.print_tokenizers(reports, json, quiet)


@tokenizer_app.command()
def extend(
    old: Annotated[Path, typer.Argument(help="SentencePiece model of another language.")],
    source: Annotated[
        Path, typer.Option("--with", help="Korean text or dump to find pieces in, or a Korean model.")
    ],
    output: OutputOption,
    number: Annotated[int, typer.Option("--pieces", min=1, help="Most pieces to add.")] = 10_000,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Add Korean pieces at the end of a model; all else keeps its ids and is encoded as before."""
    from kovqa_core.tokenizer.extend import extend_tokenizer

    from kovqa_cli.output import progress
    from kovqa_cli.output import tokenizer as output_tokenizer

    with progress.stage_status(quiet or json) as told, _note_when_stopped(quiet):
        card = extend_tokenizer(old, source, output, number, told)
    output_tokenizer.print_trained_tokenizer(output, card, json, quiet)


@contextlib.contextmanager
def _note_when_stopped(quiet: bool) -> Iterator[None]:
    from kovqa_cli.output import console

    try:
        yield
    except KeyboardInterrupt:
        if not quiet:
            console.print_note(
                "stopped; the lines cleaned so far are kept → run the same command again to go on"
            )
        raise


def _read_stdin_lines() -> Iterator[str]:
    from kovqa_core.files import decode_text

    for number, line in enumerate(sys.stdin.buffer, 1):
        yield decode_text(line, "stdin", number).rstrip("\r\n")
