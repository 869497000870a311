"""kovqa tokenizer: text -> SentencePiece model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options

app = typer.Typer(help="Korean tokenizers.", no_args_is_help=True)


@app.command()
def train(
    texts: Annotated[list[Path], typer.Argument(help="Text files, one sentence a line.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write.")] = Path(
        "tokenizer.model"
    ),
    vocab_size: Annotated[int, typer.Option("--vocab-size", min=16, help="Pieces.")] = 10_000,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a SentencePiece model (unigram, byte fallback) on text files."""
    from kovqa_core.data.tokenizer import train_tokenizer

    from kovqa_cli import show

    card = train_tokenizer(texts, output, vocab_size)
    if json:
        show.document({"path": str(output), **card})
        return
    if not quiet:
        show.note(f"{card['pieces']:,} pieces from {card['lines']:,} lines")
    show.out(str(output))
