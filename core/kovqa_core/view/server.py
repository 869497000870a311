"""`kovqa view` itself: the session, and a server of its page on this machine."""

from __future__ import annotations

import socket
from collections.abc import Callable

from kovqa_core.view.app import make_app
from kovqa_core.view.inputs import ViewInputs
from kovqa_core.view.session import ViewSession
from kovqa_core.web.http_server import new_server

_GRACE_SECONDS = 2.0
# Small files are read, and what is wrong with them is said, before an address is; large ones while the page is seen.
_SMALL_BYTES = 16 << 20
_SMALL_PATIENCE_SECONDS, _PATIENCE_SECONDS = 10.0, 0.05


def serve_view(
    inputs: ViewInputs,
    listening: socket.socket,
    *,
    keep: bool = True,
    on_ready: Callable[[ViewSession], None] = lambda session: None,
) -> None:
    """Serve the page until a signal ends it.

    Args:
        inputs: what is shown.
        listening: of `bind_socket`.
        keep: may the database stay in the user's cache?
        on_ready: called once the page is served; the database may not be there yet.

    Raises:
        DataError: predictions that do not fit the index, also found while the page is served.
        MachineError: no room for the database.
    """
    session = ViewSession(inputs, keep=keep)
    server = new_server(make_app(session), on_ready=lambda: on_ready(session), grace_seconds=_GRACE_SECONDS)

    def end() -> None:
        server.should_exit = True

    session.on_failure = end
    session.start()
    try:
        session.wait(_SMALL_PATIENCE_SECONDS if _input_bytes(inputs) < _SMALL_BYTES else _PATIENCE_SECONDS)
        server.run([listening])
        session.raise_error()
    finally:
        session.close()
        listening.close()


def _input_bytes(inputs: ViewInputs) -> int:
    files = [*(split.path for split in inputs.splits.values()), *inputs.predictions]
    return sum(path.stat().st_size for path in files)
