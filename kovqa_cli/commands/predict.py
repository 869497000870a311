"""kovqa predict: one question, a whole table, or a conversation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kovqa_cli import options
from kovqa_cli.commands.chat import run_chat

if TYPE_CHECKING:
    from kovqa_core.data.decoding import DecodingOptions


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
    kind: options.KindOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Predictions file (JSON lines), with --input.")
    ] = None,
    model: options.ModelOption = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            help="Machine whose processes share the table: a name or a YAML file. [default: one process]",
            autocompletion=options.complete_profile,
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Questions answered at once.")] = 32,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--answers",
            help="Answer from a list only, by likelihood: one a line, or an index. Vision language models.",
        ),
    ] = None,
    choices: Annotated[
        bool,
        typer.Option(
            "--choices", help="Answer with one of the row's column choices, by its letter's likelihood."
        ),
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", min=0.0, help="Draw answers: 0.7 is usual. [default: the likeliest]"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of --temperature: same seed, same answers.")
    ] = None,
    vote: Annotated[
        list[Path] | None,
        typer.Option("--vote", help="Predictions file; of several, the answer most give becomes --output."),
    ] = None,
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
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Answer one question about one picture, or every row of a table; or ask on: --chat; or --vote."""
    from kovqa_core.data.decoding import GREEDY_DECODING, decoding_from_options
    from kovqa_core.errors import SettingsError
    from kovqa_core.evaluate.ensemble import vote_on_files

    from kovqa_cli.output import console, progress

    decoding = decoding_from_options(answers, choices=choices, temperature=temperature, seed=seed)
    if vote:
        others = (image, question, chat, input, images, kind, decoding != GREEDY_DECODING, trust_remote_code)
        if output is None or any(others):
            raise SettingsError(
                "--vote takes predictions files and --output", "kovqa predict --vote A --vote B -o C"
            )
        console.print_ensemble(output, vote, vote_on_files(vote, output), json, quiet)
        return
    one, many = image is not None and question is not None, input is not None and output is not None
    if [one, many, chat].count(True) != 1 or (chat and (question or input or output)):
        raise SettingsError(
            "give --image and --question, or --input and --output, or --chat, or --vote and --output",
            "kovqa predict -i x.png --question '무엇인가요?'",
        )
    if (kind or choices) and not many:
        what = "--kind chooses rows" if kind else "--choices is a column"
        raise SettingsError(f"{what} of a table", "give --input and --output")
    if profile and (server or not many):
        raise SettingsError("--profile shares a table among processes", "give --input and --output")
    if server:
        if chat or decoding != GREEDY_DECODING or trust_remote_code:
            what = "--answers, --choices or --temperature"
            what = "--chat" if chat else "--trust-remote-code" if trust_remote_code else what
            raise SettingsError(f"--server does not go with {what}", "leave one out")
        _answer_by_server(
            server, image, question, input, images, kind, output, model, concurrency, json, quiet
        )
        return
    if chat:
        run_chat(image, model, decoding, trust_remote_code, json, quiet)
        return
    if profile:
        assert input is not None and output is not None
        _answer_by_workers(
            profile, input, images, kind, output, model, batch, decoding, trust_remote_code, json, quiet
        )
        return
    from kovqa_core.answer import local as work

    if one:
        assert image is not None and question is not None
        answer, used = work.answer_question(image, question, model, decoding, trust_remote_code)
        console.print_answer(answer, used, json, quiet)
        return
    assert input is not None and output is not None
    with progress.progress_bar("answering", quiet or json) as told:
        rows, used = work.answer_table(
            input, images, output, model, batch, told,
            kinds=kind or (), decoding=decoding, trust_remote_code=trust_remote_code,
        )  # fmt: skip
    console.print_predictions(output, rows, used, json, quiet)


def _answer_by_workers(
    profile: str,
    input: Path,
    images: Path | None,
    kind: list[str] | None,
    output: Path,
    model: Path | None,
    batch: int,
    decoding: DecodingOptions,
    trust_remote_code: bool,
    json: bool,
    quiet: bool,
) -> None:
    """A table, answered by a profile's processes: this one only starts them."""
    from kovqa_core.answer.workers import answer_table_with_workers

    from kovqa_cli.output import console, progress

    with progress.progress_bar("answering", quiet or json) as told:
        rows, used = answer_table_with_workers(
            profile, input, images, output, model, batch, told, kind or (), decoding, trust_remote_code
        )
    console.print_predictions(output, rows, used, json, quiet)


def _answer_by_server(
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
    from kovqa_core.answer import remote_client as work

    from kovqa_cli.output import console, progress

    name, note = str(model) if model else None, None if quiet else console.print_note
    if image is not None and question is not None:
        answer, used = work.ask_server(server, name, image, question, note)
        console.print_answer(answer, used, json, quiet)
        return
    assert input is not None and output is not None
    with progress.progress_bar("answering", quiet or json) as told:
        rows, used = work.answer_table_with_server(
            server, name, input, images, output, concurrency, told, note, kind or ()
        )
    console.print_predictions(output, rows, used, json, quiet)
