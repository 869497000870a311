"""The bodies of requests: bounded in size, in time, and all together in memory."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from kovqa_core.messages import message
from kovqa_core.web.http_errors import RefusedRequest

_REFUSED_BODY_SECONDS = 5.0  # for what is still sent after it was refused


@dataclass
class BodyRoom:
    """So many bytes are left for the bodies of all requests that are being answered."""

    bytes_left: int


class BoundedBody:
    """The body of a request, no larger and no slower than it may be, and with room beside those of others."""

    def __init__(
        self, receive: Receive, headers: Headers, max_bytes: int, deadline: float, room: BodyRoom
    ) -> None:
        self._receive, self._max_bytes, self._deadline, self._room = receive, max_bytes, deadline, room
        self._bytes = 0
        self._is_whole = "content-length" not in headers and "transfer-encoding" not in headers
        # Who expects to be told to go on sends nothing before; `receive` tells it.
        self._is_coming = "expect" not in headers

    async def receive(self) -> Message:
        """The next part, for the app.

        Raises:
            RefusedRequest: it is too large, too slow, or there is no room for it.
        """
        if self._is_whole:  # what comes now is the end of the connection
            return await self._receive()
        self._is_coming = True
        try:
            async with asyncio.timeout_at(self._deadline):
                event = await self._receive()
        except TimeoutError:
            self._is_coming = False
            text = message("web.slow-body", "the request did not arrive in time")
            raise RefusedRequest(408, text, {"Connection": "close"}) from None
        self._is_whole = not event.get("more_body", False)
        size = len(event.get("body", b""))
        self._bytes += size
        self._room.bytes_left -= size
        if self._bytes > self._max_bytes:
            raise body_too_large(self._max_bytes)
        if self._room.bytes_left < 0:
            text = message("web.too-many-bodies", "too many large requests at once")
            raise RefusedRequest(503, text, {"Retry-After": "1"})
        return event

    def leave(self) -> None:
        """The request has its reply: what was kept of it is free."""
        self._room.bytes_left += self._bytes

    async def discard(self) -> None:
        """Read what nobody wants: a client whose connection is closed while it sends never sees the reply."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REFUSED_BODY_SECONDS):
                while self._is_coming and not self._is_whole:
                    self._is_whole = not (await self._receive()).get("more_body", False)


def body_too_large(max_bytes: int) -> RefusedRequest:
    """The refusal of a request with more bytes than this."""
    return RefusedRequest(
        413, message("web.body-too-large", "a request may have {size:,} bytes here", size=max_bytes)
    )
