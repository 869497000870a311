"""One question to a server of models, as OpenAI's chat completions: vLLM, SGLang and others take them.

The prompt is that of a vision language model of ours; the server applies the model's chat template and shrinks
images as it was configured to. Nothing here needs torch.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx2
from pydantic import BaseModel, Field, ValidationError

from kovqa_core.bounded_json import parse_json
from kovqa_core.data.answers import tidy_answer
from kovqa_core.data.example import Answer, Example
from kovqa_core.data.image_io import read_image
from kovqa_core.data.question_prompts import DEFAULT_INSTRUCTION, DEFAULT_MAX_NEW_TOKENS, build_prompt
from kovqa_core.errors import AssetError, DataError, KovqaError, SettingsError
from kovqa_core.files import read_bytes, to_nfc
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


@dataclass(frozen=True)
class ChatServer:
    """Where requests go.

    Attributes:
        url: without a slash at its end.
        headers: what only the server may see.
        client: keeps connections open.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    client: httpx2.Client


# What we read of a server's replies; whatever else is in them is ignored.


class _ServedModel(BaseModel):
    id: str


class _ModelList(BaseModel):
    data: list[_ServedModel]


class _TokenScore(BaseModel):
    logprob: float


class _TokenScores(BaseModel):
    content: list[_TokenScore] | None = None


class _ReplyMessage(BaseModel):
    content: object = None  # a thinking model may leave it out


class _ReplyChoice(BaseModel):
    message: _ReplyMessage
    logprobs: _TokenScores | None = None
    finish_reason: str | None = None


class _ChatCompletion(BaseModel):
    choices: list[_ReplyChoice] = Field(min_length=1)


# What a server's decoder writes for the bytes of a syllable that the budget of tokens tore apart.
_REPLACEMENT_CHARACTER = "\ufffd"
ReplyType = TypeVar("ReplyType", bound=BaseModel)


@contextlib.contextmanager
def connect_server(url: str, on_progress: OnProgress = ignore_progress) -> Iterator[ChatServer]:
    """A server, its key read; nothing is requested yet.

    Args:
        url: of the server, up to and with /v1.
        on_progress: told of a key that is there and is for another host.

    Raises:
        SettingsError: not an address of a server, or one with a key in it; or see `find_server_key`.
    """
    origin = _require_server_address(url)
    key = find_server_key(url)
    if key.note:
        on_progress(Progress(key.note, is_note=True))
    headers = {"Authorization": f"Bearer {key.secret}"} if key.secret else {}
    with new_http_client(_TIMEOUT_SECONDS, direct=is_loopback(origin.host)) as client:
        yield ChatServer(url.rstrip("/"), headers, client)


def _require_server_address(url: str) -> Origin:
    try:
        origin, parts = url_origin(url), httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        origin, parts = Origin("", "", None), httpx2.URL()
    if origin.scheme not in ("http", "https") or not origin.host:
        raise SettingsError(
            message("answer.server-address", "--server {url} is not an http address", url=redact_url(url)),
            _address_hint(),
        )
    # `\\` ends the host for some readers of addresses and not for others.
    if "@" in url.partition("://")[2].partition("/")[0] or "\\" in url or parts.query or parts.fragment:
        raise SettingsError(
            message(
                "answer.key-in-address",
                "--server {url}: keys do not belong in an address",
                url=redact_url(url),
            ),
            _key_hint(origin),
        )
    return origin


def _key_hint(origin: Origin) -> Message:
    return message(
        "answer.server-key.hint", "export KOVQA_SERVER_KEY=… KOVQA_SERVER_HOST={origin}", origin=origin
    )


def _address_hint() -> str:
    return message("answer.server-address.hint", "the address ends in /v1: --server http://HOST:8000/v1")


def find_only_model(server: ChatServer) -> str:
    """The name of the only model a server has.

    Raises:
        SettingsError: it has several, which are named, or none.
        AssetError: the server cannot be reached, or is not such a server.
    """
    models = _request(server, "/models", _ModelList)
    names = [model.id for model in models.data]
    if len(names) != 1:
        raise SettingsError(
            message(
                "answer.several-served-models",
                "{url} serves {count} models: {names}",
                url=redact_url(server.url),
                count=len(names),
                names=page_text(", ".join(names).encode()),
            ),
            message("answer.several-served-models.hint", "choose one: --model NAME"),
        )
    return names[0]


# ---------------------------------------------------------------------------------- one question


class UnreadableImage(DataError):
    """The fault of one row, not of the server: other rows can be answered."""


def request_answer(
    server: ChatServer,
    model: str,
    example: Example,
    image_folder: Path,
    on_progress: OnProgress = ignore_progress,
) -> Answer:
    """The answer to one question; errors name its id, unless they are about all questions.

    Args:
        server: where to.
        model: its name there.
        example: the question; an empty id is not named.
        image_folder: folder that its image path starts from.
        on_progress: called when the server is out of reach and the request will be repeated.

    Raises:
        SettingsError: a key the server does not take, or no such model.
        DataError: an image that cannot be read, or a question that the server refuses.
        AssetError: the server cannot be reached or fails again and again.
    """
    try:
        try:
            body = _chat_request(model, example, image_folder)
        except DataError as error:
            raise UnreadableImage(error.message, error.hint) from None
        completion = _request(server, "/chat/completions", _ChatCompletion, body, on_progress)
        return _answer_of(completion, server)
    except (DataError, AssetError) as error:
        if not example.id:
            raise
        # Subclasses of AssetError (such as a refusal) take other arguments.
        error_class = next(
            kind for kind in (UnreadableImage, DataError, AssetError) if isinstance(error, kind)
        )
        raise error_class(
            message("answer.row-failed", "id {id}: {error}", id=example.id, error=error.message), error.hint
        ) from None


def _chat_request(model: str, example: Example, image_folder: Path) -> dict[str, object]:
    """A chat completion's request; thinking is switched off."""
    image = {"type": "image_url", "image_url": {"url": image_data_url(image_folder / example.image)}}
    text = build_prompt(to_nfc(example.question), DEFAULT_INSTRUCTION, context=to_nfc(example.context))
    question = {"type": "text", "text": text}
    return {
        "model": model,
        "messages": [{"role": "user", "content": [image, question]}],
        "temperature": 0,  # greedy, as ours without options
        "max_tokens": DEFAULT_MAX_NEW_TOKENS,
        "logprobs": True,  # of the chosen tokens: the score
        # Qwen3 and its like would spend the few tokens of an answer on thinking; other templates ignore it.
        "chat_template_kwargs": {"enable_thinking": False},
    }


def image_data_url(path: Path) -> str:
    """An image as a `data:` URL: JPEG and PNG as they are, if every reader sees the same in them.

    What is turned (EXIF), transparent, of 16 bits, damaged or of another format is brought to upright RGB over white
    as for a model of ours, and sent as JPEG.

    Raises:
        DataError: it cannot be read.
    """
    opened = read_image(path)
    image_format = opened.plain_format
    if image_format is not None:
        data = read_bytes(path)
    else:
        image_format, stream = "JPEG", io.BytesIO()
        opened.pixels.save(stream, "JPEG", quality=95, subsampling=0)
        data = stream.getvalue()
    return f"data:image/{image_format.lower()};base64,{base64.b64encode(data).decode()}"


def _answer_of(completion: _ChatCompletion, server: ChatServer) -> Answer:
    """The answer in a chat completion; its score is the mean probability of its tokens, nan if not reported."""
    choice = completion.choices[0]
    if not isinstance(choice.message.content, str):
        raise DataError(
            message(
                "answer.no-text",
                "{url} gives no text ({finish_reason!r})",
                url=redact_url(server.url),
                finish_reason=choice.finish_reason,
            ),
            message("answer.no-text.hint", "if it is a thinking model, serve it with thinking switched off"),
        )
    tokens = (choice.logprobs and choice.logprobs.content) or []
    # A few servers report a tiny positive log-probability, rounded in bf16.
    probabilities = [math.exp(min(0.0, token.logprob)) for token in tokens]
    score = sum(probabilities) / len(probabilities) if probabilities else math.nan
    text = choice.message.content
    if choice.finish_reason == "length":
        text = text.rstrip(_REPLACEMENT_CHARACTER)
    return Answer(tidy_answer(text), score)


# ----------------------------------------------------------------------------------- one request


def _request(
    server: ChatServer,
    path: str,
    reply_type: type[ReplyType],
    body: Mapping[str, object] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ReplyType:
    """What a server replies, asked again while it is busy or out of reach."""
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
        raise _status_error(remote, response, reply)
    try:
        return reply_type.model_validate_json(reply)
    except ValidationError:
        raise AssetError(
            message(
                "answer.unexpected-reply",
                "{url} does not reply as a server of chat completions",
                url=redact_url(remote.url),
            ),
            _address_hint(),
        ) from None


def _status_error(remote: RemoteFile, response: httpx2.Response, reply: bytes) -> KovqaError:
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
                "{address_hint}; --model NAME is a name its /models lists",
                address_hint=_address_hint(),
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
            _address_hint(),
        )
    return DataError(
        text,
        message("answer.refused-request.hint", "leave the row out, or serve the model with other limits"),
    )


def _error_text(reply: bytes) -> str:
    """The message of an error in OpenAI's form; of any other page, its text."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        error = parse_json(reply)
        return page_text(str(error.get("error", error)["message"]).encode())
    return page_text(reply)
