"""kovqa serve: a page and an interface for programs, of one model or several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import completion, options, speech_options


def serve(
    *,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            metavar="DIR|OWNER/NAME",
            help="Run folder, step folder or Hugging Face folder, or OWNER/NAME[@REVISION] of the Hugging Face hub. "
            "Repeatable. [default: the newest finished run here]",
            autocompletion=completion.complete_model,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Where to listen. Beyond this machine (0.0.0.0) only with KOVQA_SERVE_TOKEN, which clients then send.",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0: a free one.")] = 8000,
    max_wait_ms: Annotated[
        float,
        typer.Option(
            "--max-wait-ms",
            metavar="N",
            min=0,
            max=10_000,
            help="How long a question waits for others to be answered with.",
        ),
    ] = 5.0,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, max=4096, help="Questions answered at once.")
    ] = 32,
    queue: Annotated[
        int,
        typer.Option(
            "--queue",
            metavar="N",
            min=1,
            max=100_000,
            help="Requests that may wait; others are sent away (429).",
        ),
    ] = 256,
    max_body: Annotated[
        int, typer.Option("--max-body", metavar="MB", min=1, max=1000, help="Largest request.")
    ] = 32,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=1,
            max=3600,
            help="Until a request is answered, or ends (504).",
        ),
    ] = 60.0,
    allow_url: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-url",
            metavar="HOST",
            help="Fetch images that clients name by an address of this host. Repeatable. [default: none are fetched]",
        ),
    ] = None,
    speech_model: speech_options.SpeechModelOption = None,
    precision: options.PrecisionOption = "auto",
    load: options.LoadOption = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Serve models: a page to ask them, and an interface for programs (also OpenAI's).

    The address is the result on stdout. Ctrl-C or SIGTERM ends: what was accepted is answered first.
    """
    from kovqa_core.web.serve_extra import require_serve_extra

    require_serve_extra()
    from kovqa_core.answer.job import AnswerOptions
    from kovqa_core.models.load_form import require_load_form
    from kovqa_core.models.precision import require_precision
    from kovqa_core.serve.batch_queue import QueueLimits
    from kovqa_core.serve.server import ServeOptions, serve_models

    from kovqa_cli.output.answers import print_cpu_warning
    from kovqa_cli.output.serve import print_reply, print_started

    answer = AnswerOptions(
        precision=require_precision(precision),
        load=require_load_form(load),
        trust_remote_code=trust_remote_code,
    )
    limits = QueueLimits(batch, max_wait_ms / 1000, queue, timeout)
    serve_options = ServeOptions(
        tuple(model or ()), host, port, answer, limits, max_body * 1_000_000, tuple(allow_url or ()),
        speech_model or "",
    )  # fmt: skip
    print_cpu_warning()
    serve_models(
        serve_options,
        lambda started: print_started(started, as_json=json, quiet=quiet),
        lambda *reply: None if quiet or json else print_reply(*reply),
    )
