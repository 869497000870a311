"""A server of models, from its options to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from starlette.routing import Route
from starlette.types import ASGIApp

from kovqa_core.answer.job import AnswerOptions
from kovqa_core.data.image_memory import image_memory_limit
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.net.api_keys import find_api_key
from kovqa_core.net.hosts import is_loopback
from kovqa_core.serve.app import build_app
from kovqa_core.serve.ask_page import render_ask_page
from kovqa_core.serve.batch_queue import QueueLimits
from kovqa_core.serve.fetch_image import image_fetcher, require_host_names
from kovqa_core.serve.served_models import ServedModel, load_served_models
from kovqa_core.serve.state import Transcribe
from kovqa_core.web.http_server import LOCAL_HOSTS, bind_socket, guard_app, run_app, server_url

TOKEN_VARIABLE = "KOVQA_SERVE_TOKEN"
_TOKEN_FILE = "serve.token"  # in the user's kovqa folder
_MIN_TOKEN_LETTERS = 16  # where others can try
_FORM_BYTES = 20_000
_PIXEL_BYTES = 8  # that an image takes while it is opened (`data.image_memory`)
_GRACE_SECONDS = 10.0  # beyond a request's own time: to send its reply


@dataclass(frozen=True)
class ServeOptions:
    """What is served, where, and how much of it.

    Attributes:
        models: run, step or Hugging Face folders; none: the newest finished run.
        host: address to listen at; beyond this machine only with a token.
        port: 0: a free one.
        answer: how models answer; its `model` and `task` are not looked at.
        limits: of waiting requests.
        max_body_bytes: of a request.
        allowed_url_hosts: whose images are fetched by address.
        speech_model: what writes down spoken questions: a folder or name; "": nothing does.
    """

    models: Sequence[Path] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    answer: AnswerOptions = field(default_factory=AnswerOptions)
    limits: QueueLimits = field(default_factory=QueueLimits)
    max_body_bytes: int = 32_000_000
    allowed_url_hosts: Sequence[str] = ()
    speech_model: str = ""


@dataclass(frozen=True)
class ServerStarted:
    """A server that answers.

    Attributes:
        url: its address, for a browser here.
        models: what it serves.
        has_token: does it ask for one?
        is_local: is it reached from this machine alone?
        hears: does it write down spoken questions?
    """

    url: str
    models: Sequence[ServedModel]
    has_token: bool
    is_local: bool
    hears: bool = False


def serve_models(
    options: ServeOptions,
    on_started: Callable[[ServerStarted], None],
    on_reply: Callable[[str, str, int, float], None],
) -> None:
    """Serve until a signal; see `web.http_server.run_app`.

    Args:
        options: what, where, how much.
        on_started: called once requests are answered.
        on_reply: see `guard_app`.

    Raises:
        SettingsError: no token for a server that others reach; no such address; no host to fetch images from.
        MachineError: the port is taken.
        ModelError: no model.
    """
    token = read_serve_token(options.host)
    require_host_names(options.allowed_url_hosts)
    with bind_socket(
        options.host, options.port
    ) as listening:  # before models are loaded, which takes a while
        models = load_served_models(options.models, options.answer)
        transcribe = _load_transcribe(options.speech_model) if options.speech_model else None
        app = guarded_app(models, options, token, on_reply, transcribe)
        started = ServerStarted(
            server_url(listening), list(models.values()), bool(token), is_loopback(options.host),
            transcribe is not None,
        )  # fmt: skip
        run_app(
            app, listening, on_ready=lambda: on_started(started),
            grace_seconds=options.limits.timeout_seconds + _GRACE_SECONDS,
        )  # fmt: skip


def _load_transcribe(name: str) -> Transcribe:
    """What writes down speech, by the model of a folder; raises as `load_recogniser`."""
    from kovqa_core.speech.recognition import load_recogniser, transcribe
    from kovqa_core.speech.speech_folder import find_speech_folder

    return partial(transcribe, load_recogniser(find_speech_folder(name)))


def guarded_app(
    models: dict[str, ServedModel],
    options: ServeOptions,
    token: str,
    on_reply: Callable[[str, str, int, float], None],
    transcribe: Transcribe | None = None,
) -> ASGIApp:
    """The app of loaded models, and the guard before it."""
    fetch_image = image_fetcher(options.allowed_url_hosts, options.max_body_bytes)
    # A form has a little beside the file; the pixels are those of an image of 8 bits a channel.
    page = render_ask_page(
        max_image_bytes=options.max_body_bytes - _FORM_BYTES, max_pixels=image_memory_limit() // _PIXEL_BYTES,
        hears=transcribe is not None,
    )  # fmt: skip
    app = build_app(models, options.limits, fetch_image, page, transcribe)
    metrics, routes = app.state.serve.metrics, [route for route in app.routes if isinstance(route, Route)]

    def note_reply(method: str, path: str, status: int, seconds: float) -> None:
        # What a client makes up is no label: each would be kept for ever.
        known = next((route.path for route in routes if route.path_regex.match(path)), "other")
        metrics.count_reply(known, status, seconds)
        on_reply(method, path, status, seconds)

    # With a token any: a server with https before this one hands on its own name.
    allowed_hosts = None if token else {*LOCAL_HOSTS, options.host}
    return guard_app(
        app, token=token, allowed_hosts=allowed_hosts, max_body_bytes=options.max_body_bytes,
        body_seconds=options.limits.timeout_seconds, on_reply=note_reply,
    )  # fmt: skip


def read_serve_token(host: str) -> str:
    """The token that clients must have; "" for a server of this machine alone that has none.

    Raises:
        SettingsError: others reach the server, and it has none, or one that can be guessed.
    """
    token = find_api_key("kovqa serve", TOKEN_VARIABLE, _TOKEN_FILE)
    if not is_loopback(host) and len(token) < _MIN_TOKEN_LETTERS:
        raise SettingsError(
            message(
                "serve.token-needed", "--host {host} lets others in, who must have a token of {count} letters or more",
                host=host, count=_MIN_TOKEN_LETTERS,
            ),
            message(
                "serve.token-needed.hint",
                "export {variable}=$(openssl rand -hex 24), and give it to who may ask",
                variable=TOKEN_VARIABLE,
            ),
        )  # fmt: skip
    return token
