"""kovqa view: data and errors in a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

from kovqa_cli import options

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def view(
    index: Annotated[Path, typer.Argument(help="Index folder, or a split's .jsonl.", metavar="INDEX")],
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            "--predictions",
            metavar="FILE",
            help="Answers of a model to one split; a second one is compared with it.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Image folder. [default: as the index says]"),
    ] = None,
    kind: options.KindOption = None,
    normalise: Annotated[
        str | None,
        typer.Option("--normalise", metavar="NAME", help="Form of answers, as for kovqa evaluate."),
    ] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", metavar="NAME", help="Scores of answers, as for kovqa evaluate.")
    ] = "auto",
    host: Annotated[str, typer.Option("--host", metavar="NAME", help="127.0.0.1 or ::1.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, metavar="N", help="0: a free one.")] = 8008,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Count anew, and keep nothing for the next time.")
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Look at data and errors in a page on this machine.

    Runs until Ctrl-C. What was counted stays in the cache folder (XDG_CACHE_HOME) for the next time.
    """
    from kovqa_core.view.engine import require_engine

    if host not in _LOOPBACK:
        raise SettingsError(
            message(
                "view.not-this-machine",
                "--host {host}: the page shows all data without a password",
                host=host,
            ),
            message(
                "view.not-this-machine.hint",
                "leave it out, and look from another machine through ssh -L {port}:127.0.0.1:{port} MACHINE",
                port=port,
            ),
        )
    if kind and not predictions:
        raise SettingsError(
            message("view.kind-without-predictions", "--kind names what is scored, and there are no predictions"),
            message(
                "view.kind-without-predictions.hint", "leave it out: the page itself shows the rows of one type"
            ),
        )  # fmt: skip
    require_engine()
    from kovqa_core.view.inputs import ScoringRules, open_inputs
    from kovqa_core.view.server import serve_view
    from kovqa_core.web.http_server import bind_socket, server_url

    from kovqa_cli.output.view import print_view_ready

    inputs = open_inputs(
        index, predictions or (), images, ScoringRules(normalise, protocol, tuple(kind or ()))
    )
    listening = bind_socket(host, port)
    url = server_url(listening)
    serve_view(
        inputs,
        listening,
        keep=not no_cache,
        on_ready=lambda session: print_view_ready(
            session, url, open_browser=open_browser, as_json=json, quiet=quiet
        ),
    )
