"""kovqa predict: one question, a whole table, or a conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options
from kovqa_cli.chat import talk


def predict(
    image: Annotated[Path | None, typer.Option("--image", "-i", help="Picture.")] = None,
    question: Annotated[str | None, typer.Option("--question", help="Question about the picture.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Ask for questions about a picture, one after the other.")
    ] = False,
    input: Annotated[
        Path | None,
        typer.Option(
            "--input", help="Many questions: an index's .jsonl, or a CSV/JSONL with id, image, question."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder the table's picture paths start from.")
    ] = None,
    kind: options.Kind = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Predictions file (JSON lines), with --input.")
    ] = None,
    model: options.Model = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Questions answered at once.")] = 32,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="URL",
            help="Ask a vLLM or SGLang server (…/v1); --model is a name there. Key: KOVQA_SERVER_KEY.",
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=100, help="Requests on their way to a server at once.")
    ] = 16,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Answer one question about one picture, or every row of a table; or ask on: --chat."""
    from kovqa_core.errors import SettingsError

    from kovqa_cli import progress, show

    one, many = image is not None and question is not None, input is not None and output is not None
    if [one, many, chat].count(True) != 1 or (chat and (question or input or output)):
        raise SettingsError(
            "give --image and --question, or --input and --output, or --chat",
            "kovqa predict -i x.png --question '무엇인가요?'",
        )
    if kind and not many:
        raise SettingsError("--kind chooses rows of a table", "give --input and --output")
    if server:
        if chat:
            raise SettingsError("--chat asks a model of ours", "leave --server out")
        _ask_server(server, image, question, input, images, kind, output, model, concurrency, json, quiet)
        return
    if chat:
        talk(image, model, json, quiet)
        return
    from kovqa_core import predict as work

    if one:
        assert image is not None and question is not None
        answer, used = work.answer_one(image, question, model)
        show.answer(answer, used, json, quiet)
        return
    assert input is not None and output is not None
    with progress.bar("answering", quiet or json) as told:
        rows, used = work.answer_table(input, images, output, model, batch, told, kinds=kind or ())
    show.predictions(output, rows, used, json, quiet)


def _ask_server(
    server: str,
    image: Path | None,
    question: str | None,
    input: Path | None,
    images: Path | None,
    kind: list[str] | None,
    output: Path | None,
    model: Path | None,
    concurrency: int,
    json: bool,
    quiet: bool,
) -> None:
    """The same, answered by a server: nothing of a model is loaded here."""
    from kovqa_core import serving_client as work

    from kovqa_cli import progress, show

    name, note = str(model) if model else None, None if quiet else show.note
    if image is not None and question is not None:
        answer, used = work.answer_one(server, name, image, question, note)
        show.answer(answer, used, json, quiet)
        return
    assert input is not None and output is not None
    with progress.bar("answering", quiet or json) as told:
        rows, used = work.answer_table(
            server, name, input, images, output, concurrency, told, note, kind or ()
        )
    show.predictions(output, rows, used, json, quiet)
