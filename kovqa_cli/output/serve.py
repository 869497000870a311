"""What `kovqa serve` prints: its address, and a line for each reply."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from kovqa_core.messages import message

from kovqa_cli.output.console import print_note, print_outcome, short_path

if TYPE_CHECKING:
    from kovqa_core.serve.server import ServerStarted


def print_started(started: ServerStarted, *, as_json: bool, quiet: bool) -> None:
    """The address on stdout, and on stderr what is served there."""
    notes = [
        message(
            "serve.model-note", "{id}: {folder} ({task}, {family}, {precision})",
            id=model.id, folder=short_path(model.loaded.folder), task=model.task, family=model.family,
            precision=model.loaded.precision,
        )
        for model in started.models
    ]  # fmt: skip
    if not started.is_local:
        notes.append(
            message(
                "serve.plain-http-note",
                "others in the network can read what is sent, the token too: put a server with https before it, or use "
                "ssh -L PORT:localhost:PORT HOST",
            )
        )
    fields = {
        "url": started.url,
        "models": [{"id": model.id, "task": model.task, "family": model.family} for model in started.models],
        "token": started.has_token,
        "speech": started.hears,
    }
    print_outcome(started.url, fields, notes, as_json=as_json, quiet=quiet)


def print_reply(method: str, path: str, status: int, seconds: float) -> None:
    """A line of the log: no query, no header, no body."""
    text = message(
        "serve.reply-note", "{method} {path} {status} {seconds:.3f} s",
        method=method, path=path, status=status, seconds=seconds,
    )  # fmt: skip
    with contextlib.suppress(OSError):  # nobody reads the log any longer
        print_note(text)
