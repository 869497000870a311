"""A web server of this machine's user: a socket, an end that loses no request, and what every request must pass.

A page of any web site can send requests to a server on this machine, and can give its own name the address 127.0.0.1
(DNS rebinding). `guard_app` answers neither: the Host of a request must be ours, and its Origin, if it changes or asks
something, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import hmac
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from types import FrameType

import h11
import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from kovqa_core.errors import MachineError, SettingsError
from kovqa_core.messages import message
from kovqa_core.messages.system_reasons import system_reason
from kovqa_core.system_support import existing_signals
from kovqa_core.web.http_errors import RefusedRequest, error_reply
from kovqa_core.web.request_body import BodyRoom, BoundedBody, body_too_large

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_HEAD_SECONDS = 20.0  # for the head of a request, from the first byte (or the connection) to the last
_WRITE_SECONDS = 60.0  # for a client that does not read what it asked for
_KEEP_ALIVE_SECONDS = 30  # longer than clients keep idle connections, so that they are the ones to close them
_LAST_READ_SECONDS = 0.2
_MAX_CONNECTIONS = 512
_BODIES_AT_ONCE = 16  # of the largest size; what all requests together may hold of memory
_LOG = logging.getLogger("uvicorn.error")
_SIGNALS = existing_signals(("SIGINT", "SIGTERM", "SIGHUP"))


def bind_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; connections wait in it until `run_app`.

    Args:
        host: a name or address of this machine.
        port: 0: a free one.

    Raises:
        MachineError: another program has the port, or it is one of the system's.
        SettingsError: the host is not an address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except (socket.gaierror, UnicodeError):
        raise _no_such_address(host) from None
    try:
        # Else the port is taken for a minute after the server before has ended. Windows does not need it, and would
        # let two programs have the port.
        if not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_MAX_CONNECTIONS)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise _no_such_address(host) from None
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise MachineError(
                message(
                    "web.port-taken", "port {port} of {host} cannot be used ({reason})",
                    port=port, host=host, reason=system_reason(error),
                ),
                message("web.port-taken.hint", "choose another one with --port; 0 takes a free one"),
            ) from None  # fmt: skip
        raise
    return listening


def _no_such_address(host: str) -> SettingsError:
    return SettingsError(
        message("web.no-such-address", "--host {host} is not an address of this machine", host=host),
        message(
            "web.no-such-address.hint", "this machine alone: 127.0.0.1; everyone in its network: 0.0.0.0"
        ),
    )


def server_url(listening: socket.socket) -> str:
    """The address of a socket that listens, for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# ------------------------------------------------------------------------------------- the server


def run_app(
    app: ASGIApp, listening: socket.socket, *, on_ready: Callable[[], None], grace_seconds: float
) -> None:
    """Serve until SIGTERM, Ctrl-C or a closed terminal; then answer what was accepted, and raise that signal again.

    From the signal on, connections are refused. A second signal ends the process at once.

    Args:
        app: an ASGI application.
        listening: of `bind_socket`; closed in the end.
        on_ready: called once requests are answered.
        grace_seconds: for the requests that are being answered at the signal.
    """
    new_server(app, on_ready=on_ready, grace_seconds=grace_seconds).run([listening])


def new_server(app: ASGIApp, *, on_ready: Callable[[], None], grace_seconds: float) -> uvicorn.Server:
    """The server of `run_app`; its `should_exit` ends it, too."""
    # uvicorn's notes are about its own life and about requests that are no HTTP; a traceback is an error.
    _LOG.setLevel(logging.ERROR)
    config = uvicorn.Config(
        app, http=_BoundedConnection, ws="none", loop="asyncio", lifespan="on", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, limit_concurrency=_MAX_CONNECTIONS, backlog=_MAX_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=max(1, round(grace_seconds)),
    )  # fmt: skip
    return _Server(config, on_ready)


class _Server(uvicorn.Server):
    """uvicorn's, with SIGHUP and a second SIGTERM, which uvicorn does not know."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready, self._signal = on_ready, 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Who read our stdout may have left: then a command ends, but clients of a server are others.
        with contextlib.suppress(SystemExit):
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        # What clients had sent at the signal is in the sockets, some of it unread: it becomes requests first.
        await asyncio.sleep(_LAST_READ_SECONDS)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # A signal that is ignored was meant to be: nohup, a shell's background job.
        numbers = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._signal:
            signal.raise_signal(self._signal)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._signal:
            os._exit(128 + self._signal)  # nothing is written here that could be left half
        self._signal, self.should_exit = sig, True


class _BoundedConnection(H11Protocol):
    """uvicorn's, and ends a connection whose client is too slow, for which uvicorn has no bound."""

    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._bound_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._bound_head()

    def _bound_head(self) -> None:
        """Wait for the rest of a head no longer than its time, however many bytes of it come; or of a refused body."""
        is_answered = self.cycle is not None and self.cycle.response_complete
        if self.conn.their_state is not h11.IDLE and not is_answered:
            _cancel(self._head_timer)
            self._head_timer = None
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(_WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._write_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head_timer)
        _cancel(self._write_timer)
        super().connection_lost(exc)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


# -------------------------------------------------------------------------------------- the guard


def guard_app(
    app: ASGIApp,
    *,
    token: str,
    allowed_hosts: Collection[str] | None,
    max_body_bytes: int,
    body_seconds: float = 60.0,
    open_paths: Collection[str] = ("/", "/healthz"),
    on_reply: Callable[[str, str, int, float], None] = lambda method, path, status, seconds: None,
) -> ASGIApp:
    """An app that sees only requests it should: of a known host and origin, with the token, not too large or slow.

    Args:
        app: with `ERROR_HANDLERS`: a body that turns out too large or slow is a `RefusedRequest` where it is read.
        token: that `Authorization: Bearer` must hold; "": none.
        allowed_hosts: names in the Host header, `LOCAL_HOSTS` for a server of this machine alone; None: any, for
            one with a token, which another site's page does not have.
        max_body_bytes: of a request.
        body_seconds: until it has arrived.
        open_paths: without token: what holds nothing.
        on_reply: told of every reply: method, path (without query), status, seconds until it was complete.
    """
    rules = _Rules(_digest(token) if token else None, allowed_hosts, open_paths)
    room = BodyRoom(_BODIES_AT_ONCE * max_body_bytes)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers, began = Headers(scope=scope), time.monotonic()
        body = BoundedBody(receive, headers, max_body_bytes, began + body_seconds, room)
        status, is_complete = 0, False

        async def send_guarded(event: Message) -> None:
            nonlocal status, is_complete
            if event["type"] == "http.response.start":
                await body.discard()
                _add_headers(event)
                status = event["status"]
            await send(event)
            is_complete = event["type"] == "http.response.body" and not event.get("more_body", False)

        refusal = _find_refusal(rules, scope, headers)
        if refusal is None and int(headers.get("content-length", "0")) > max_body_bytes:
            refusal = body_too_large(max_body_bytes)
        try:
            if refusal is None:
                await app(scope, body.receive, send_guarded)
            else:
                reply = error_reply(headers, refusal.status, refusal.text, refusal.headers)
                await reply(scope, receive, send_guarded)
        except ClientDisconnect:
            pass
        except Exception:
            if not is_complete:
                raise
            # Raised, it would close the connection, on which the client may be sending its next request.
            _LOG.exception("%s %s", scope["method"], scope["path"])
        finally:
            body.leave()
            on_reply(scope["method"], scope["path"], status, time.monotonic() - began)

    return guarded


@dataclass(frozen=True)
class _Rules:
    """Who may ask: see `guard_app`; the digest is the token's."""

    digest: bytes | None
    allowed_hosts: Collection[str] | None
    open_paths: Collection[str]


def _find_refusal(rules: _Rules, scope: Scope, headers: Headers) -> RefusedRequest | None:
    """Why a request is not even looked at; None: it is."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if rules.allowed_hosts is not None and _host_name(host) not in rules.allowed_hosts:
        return RefusedRequest(403, message("web.wrong-host", "this server is not {host}", host=host))
    if scope["method"] not in ("GET", "HEAD") and (
        headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        or (origin is not None and origin.partition("://")[2].lower() != host.lower())
    ):
        return RefusedRequest(
            403, message("web.foreign-page", "pages of other sites may not ask this server")
        )
    if rules.digest is not None and scope["path"] not in rules.open_paths:
        kind, _, given = headers.get("authorization", "").partition(" ")
        # Digests: of two texts of different length the comparison itself would tell which.
        if not hmac.compare_digest(_digest(given.strip() if kind.lower() == "bearer" else ""), rules.digest):
            return RefusedRequest(
                401,
                message("web.wrong-token", "this server needs its token: Authorization: Bearer TOKEN"),
                {"WWW-Authenticate": "Bearer"},
            )
    return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _host_name(host: str) -> str:
    """The host of a Host header, without its port; "" for what is none."""
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:\d+)?", host.lower())
    return found[1].removesuffix(".") if found else ""


def _add_headers(event: Message) -> None:
    """What a reply allows a browser: nothing beyond its own page, and to nobody else."""
    headers = MutableHeaders(raw=event.setdefault("headers", []))
    is_page = headers.get("content-type", "").startswith("text/html")
    # A page's own policy stands in the page; frames are the one thing it cannot say there.
    policy = "frame-ancestors 'none'" if is_page else "default-src 'none'; frame-ancestors 'none'"
    for name, value in (
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cache-Control", "no-store"),
    ):
        headers.setdefault(name, value)
