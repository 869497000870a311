"""What a server says when the answer is no: JSON of one form, which OpenAI's clients know too."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from kovqa_core.errors import AssetError, DataError, KovqaError, ModelError, SettingsError
from kovqa_core.messages import Message, message
from kovqa_core.messages.languages import LANGUAGES, translate

# Our own pages send it, with their language in Accept-Language: to a program a server answers in English, always.
PAGE_HEADER = "kovqa-page"
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_SERVER_ERROR_STATUS = 500


class RefusedRequest(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        text: what is wrong, and what to do.
        headers: of the reply.
    """

    def __init__(self, status: int, text: Message, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, dict(headers or {})


def error_reply(
    asked: Mapping[str, str], status: int, text: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The reply of a request that is refused.

    Args:
        asked: headers of the request.
        status, text, headers: of the reply.
    """
    fields = error_fields(status, text)
    if asked.get(PAGE_HEADER):
        language = asked.get("accept-language", "")
        said = {each: translate(text, each) for each in LANGUAGES}
        # The page shows one language and can be switched to the other.
        fields["error"] |= {"message": said.get(language, str(text)), "messages": said}
    return JSONResponse(fields, status, headers=dict(headers or {}))


def error_fields(status: int, text: str) -> dict[str, dict[str, object]]:
    """`{"error": {"message", "type", "code"}}`; the code is the key of the message, which no language changes."""
    default = "server_error" if status >= _SERVER_ERROR_STATUS else "invalid_request_error"
    code = text.key if isinstance(text, Message) else "web.refused"
    return {"error": {"message": str(text), "type": _ERROR_TYPES.get(status, default), "code": code}}


def _refused_reply(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedRequest)
    return error_reply(request.headers, error.status, error.text, error.headers)


def _kovqa_error_reply(request: Request, error: Exception) -> Response:
    assert isinstance(error, KovqaError)
    if isinstance(error, (SettingsError, DataError, ModelError)):
        status = 400
    else:
        status = 502 if isinstance(error, AssetError) else 500
    return error_reply(request.headers, status, error.message)


def _client_gone_reply(request: Request, error: Exception) -> Response:
    """For the log and the counts: nobody reads it. Else it would stand there as a fault of ours."""
    return error_reply(request.headers, 400, message("web.cut-off", "the request ended before its body did"))


def _http_error_reply(request: Request, error: Exception) -> Response:
    """What starlette refuses by itself: an unknown path, a method, a form that cannot be read."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        text = message("web.no-such-path", "there is no {path} here", path=request.url.path)
    elif error.status_code == 405:
        text = message(
            "web.wrong-method", "{path} does not take {method}", path=request.url.path, method=request.method
        )
    else:
        text = message("web.unreadable-request", "the request cannot be read: {reason}", reason=error.detail)
    return error_reply(request.headers, error.status_code, text, error.headers)


def _fault_reply(request: Request, error: Exception) -> Response:
    """A bug of ours: its traceback is in the server's log, not in the reply."""
    return error_reply(
        request.headers, 500, message("web.server-fault", "the server failed; its log says how")
    )


# For Starlette(exception_handlers=...): every error is JSON.
ERROR_HANDLERS = {
    RefusedRequest: _refused_reply,
    ClientDisconnect: _client_gone_reply,
    KovqaError: _kovqa_error_reply,
    HTTPException: _http_error_reply,
    Exception: _fault_reply,
}
