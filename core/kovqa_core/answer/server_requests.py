"""A server of models on the other end of `--server`: its address and key, what it serves, one request.

What it serves decides how it is asked: `kovqa serve` by `kovqa_server.py`, all others (vLLM, SGLang and the like) by
`chat_completions.py`. Nothing here needs torch.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import AssetError, DataError, KovqaError, SettingsError
from kovqa_core.messages import Message, message
from kovqa_core.net.hosts import Origin, is_loopback, url_origin
from kovqa_core.net.pages import page_text
from kovqa_core.net.request import (
    RETRY_STATUSES,
    RemoteFile,
    new_http_client,
    redact_url,
    retry_request,
    stream_request,
)
from kovqa_core.net.server_key import find_server_key
from kovqa_core.progress import OnProgress, Progress, ignore_progress

_TIMEOUT_SECONDS = 300.0  # a busy server may be silent for so long
# Statuses that are a final answer, even if the answer is no; all others are tried again or an error of the network.
_FINAL_STATUSES = frozenset(range(200, 500)) - RETRY_STATUSES
ReplyType = TypeVar("ReplyType", bound=BaseModel)


@dataclass(frozen=True)
class ModelServer:
    """Where requests go.

    Attributes:
        url: without a slash at its end.
        headers: what only the server may see.
        client: keeps connections open.
        option: by which the user named it, for messages.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    client: httpx2.Client
    option: str = "--server"

    @property
    def model_option(self) -> str:
        """The option that names a model there."""
        return "--judge-model" if self.option == "--judge" else "--model"


class ServedModel(BaseModel):
    """An entry of a server's list of models; whatever else is in it is ignored.

    Attributes:
        id: its name in requests.
        owned_by: "kovqa" of `kovqa serve`, whose entries also have the others.
        task, family: as a checkpoint has them.
        top_k: likeliest answers that it lists at most.
        reads: what it reads of a row besides image and question, of "context" and "choices".
    """

    id: str
    owned_by: str = ""
    task: str = ""
    family: str = ""
    top_k: int = 1
    reads: Sequence[str] = ()

    @property
    def is_kovqa(self) -> bool:
        """Is it asked as `kovqa serve` is?"""
        return self.owned_by == "kovqa" and bool(self.task)


class _ModelList(BaseModel):
    data: list[ServedModel]


@contextlib.contextmanager
def connect_server(
    url: str, on_progress: OnProgress = ignore_progress, option: str = "--server"
) -> Iterator[ModelServer]:
    """A server, its key read; nothing is requested yet.

    Args:
        url: of the server, up to and with /v1.
        on_progress: told of a key that is there and is for another host.
        option: that the address was given with.

    Raises:
        SettingsError: not an address of a server, or one with a key in it; or see `find_server_key`.
    """
    origin = _require_server_address(url, option)
    key = find_server_key(url)
    if key.note:
        on_progress(Progress(key.note, is_note=True))
    headers = {"Authorization": f"Bearer {key.secret}"} if key.secret else {}
    with new_http_client(_TIMEOUT_SECONDS, direct=is_loopback(origin.host)) as client:
        yield ModelServer(url.rstrip("/"), headers, client, option)


def _require_server_address(url: str, option: str) -> Origin:
    try:
        origin, parts = url_origin(url), httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        origin, parts = Origin("", "", None), httpx2.URL()
    if origin.scheme not in ("http", "https") or not origin.host:
        raise SettingsError(
            message(
                "answer.server-address",
                "{option} {url} is not an http address",
                option=option,
                url=redact_url(url),
            ),
            _address_hint(option),
        )
    # `\\` ends the host for some readers of addresses and not for others.
    if "@" in url.partition("://")[2].partition("/")[0] or "\\" in url or parts.query or parts.fragment:
        raise SettingsError(
            message(
                "answer.key-in-address",
                "{option} {url}: keys do not belong in an address",
                option=option,
                url=redact_url(url),
            ),
            _key_hint(origin),
        )
    return origin


def _key_hint(origin: Origin) -> Message:
    return message(
        "answer.server-key.hint", "export KOVQA_SERVER_KEY=… KOVQA_SERVER_HOST={origin}", origin=origin
    )


def _address_hint(option: str) -> str:
    return message(
        "answer.server-address.hint", "the address ends in /v1: {option} http://HOST:8000/v1", option=option
    )


def find_served_model(server: ModelServer, name: str | None, task: str) -> ServedModel:
    """The model of a server that is to answer.

    Args:
        server: to be asked for its list.
        name: of the model; None: its only one for the task.
        task: "vqa" or "caption".

    Raises:
        SettingsError: without a name: it has several, which are named, or none.
        AssetError: the server cannot be reached, or is not such a server.
    """
    try:
        models = request_reply(server, "/models", _ModelList).data
    except (SettingsError, DataError, _UnexpectedReply):
        if name is None:
            raise
        return ServedModel(id=name)  # some servers answer, and list nothing
    if name is not None:
        return next((model for model in models if model.id == name), ServedModel(id=name))
    fitting = [model for model in models if model.task in ("", task)]
    if len(fitting) != 1:
        raise SettingsError(
            message(
                "answer.several-served-models",
                "{url} serves {count} models: {names}",
                url=redact_url(server.url),
                count=len(fitting),
                names=page_text(", ".join(model.id for model in fitting).encode()),
            ),
            message(
                "answer.several-served-models.hint", "choose one: {option} NAME", option=server.model_option
            ),
        )
    return fitting[0]


class UnreadableImage(DataError):
    """The fault of one row, not of the server: other rows can be answered."""


class RefusedQuestion(DataError):
    """A request that a server refuses; `code` is what it says for programs."""

    code = ""


class _UnexpectedReply(AssetError):
    """A reply of another kind of server."""


def request_reply(
    server: ModelServer,
    path: str,
    reply_type: type[ReplyType],
    body: Mapping[str, object] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ReplyType:
    """What a server replies, asked again while it is busy or out of reach.

    Raises:
        SettingsError: a key the server does not take, or no such model.
        RefusedQuestion: it refuses this very request.
        AssetError: it cannot be reached or fails again and again, or replies as none of its kind.
    """
    remote = RemoteFile(server.url + path, headers=server.headers)
    content = None if body is None else json.dumps(body).encode()

    def send_once() -> tuple[httpx2.Response, bytes]:
        with stream_request(
            remote, method="POST" if content else "GET", headers={"Content-Type": "application/json"},
            accept=_FINAL_STATUSES, follow_redirects=False, body=content, client=server.client,
        ) as response:  # fmt: skip
            return response, response.read()

    response, reply = retry_request(send_once, on_progress)
    if response.status_code != 200:
        raise _status_error(server, remote, response, reply)
    try:
        return reply_type.model_validate_json(reply)
    except ValidationError:
        raise _UnexpectedReply(
            message(
                "answer.unexpected-reply",
                "{url} does not reply as a server of models",
                url=redact_url(remote.url),
            ),
            _address_hint(server.option),
        ) from None


def _status_error(
    server: ModelServer, remote: RemoteFile, response: httpx2.Response, reply: bytes
) -> KovqaError:
    """The error for a final status that is not 200: the request is not repeated."""
    status = response.status_code
    reason = remote.redact_secrets(_error_text(reply) or response.reason_phrase)  # a page may repeat our key
    text = message(
        "answer.refused-request",
        "{url}: {status} {reason}",
        url=redact_url(remote.url),
        status=status,
        reason=reason,
    )
    if status in (401, 403):
        return SettingsError(
            text,
            message(
                "answer.refused-key.hint",
                "export KOVQA_SERVER_KEY=… KOVQA_SERVER_HOST={origin} with a key this server takes",
                origin=url_origin(remote.url),
            ),
        )
    if status == 404:
        return SettingsError(
            text,
            message(
                "answer.no-such-served-model.hint",
                "{address_hint}; {option} NAME is a name its /models lists",
                address_hint=_address_hint(server.option),
                option=server.model_option,
            ),
        )
    if response.is_redirect:
        return SettingsError(
            message(
                "answer.redirected-request",
                "{text} to {target}",
                text=text,
                target=redact_url(response.headers.get("location", "")),
            ),
            _address_hint(server.option),
        )
    refused = RefusedQuestion(
        text,
        message("answer.refused-request.hint", "leave the row out, or serve the model with other limits"),
    )
    refused.code = _error_field(reply, "code")
    return refused


def _error_text(reply: bytes) -> str:
    """The message of an error in OpenAI's form; of any other page, its text."""
    return page_text((_error_field(reply, "message") or "").encode()) or page_text(reply)


def _error_field(reply: bytes, name: str) -> str:
    """A field of an error in OpenAI's form; "" where there is none."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        error = parse_json(reply)
        return str(error.get("error", error)[name])
    return ""
