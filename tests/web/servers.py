"""An app on a real socket of this machine, in a thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from kovqa_core.web.http_server import bind_socket, new_server, server_url
from starlette.types import ASGIApp


@contextlib.contextmanager
def serving(app: ASGIApp, grace_seconds: float = 5) -> Iterator[str]:
    """The address of a running app."""
    ready = threading.Event()
    listening = bind_socket("127.0.0.1", 0)
    url = server_url(listening)
    server = new_server(app, on_ready=ready.set, grace_seconds=grace_seconds)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        assert ready.wait(10)
        yield url
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
