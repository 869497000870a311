"""OpenAI's form of a question: `/v1/chat/completions` with one image, so that its clients and harnesses can ask.

https://platform.openai.com/docs/api-reference/chat: what a model of ours cannot do is refused, or named in the
reply's `ignored`; nothing is passed over in silence.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from kovqa_core.data.example import Answer
from kovqa_core.data.question_prompts import ANSWER_INSTRUCTIONS
from kovqa_core.messages import message
from kovqa_core.serve.ask_requests import FetchImage, check_fields, read_image_text
from kovqa_core.serve.served_models import MAX_QUESTION_LETTERS, MAX_TOP_K, ServedModel
from kovqa_core.web.http_errors import RefusedRequest, error_fields

_MAX_PARTS = 64


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _ImageUrl(_Strict):
    url: str = Field(min_length=1)
    detail: str | None = None


class _ImagePart(_Strict):
    type: Literal["image_url"]
    image_url: _ImageUrl


class _TextPart(_Strict):
    type: Literal["text"]
    text: str = Field(max_length=MAX_QUESTION_LETTERS)


class _ChatMessage(_Strict):
    role: Literal["user", "system", "developer", "assistant", "tool"]
    content: Annotated[
        Annotated[str, Field(max_length=MAX_QUESTION_LETTERS), Tag("text")]
        | Annotated[
            list[Annotated[_ImagePart | _TextPart, Field(discriminator="type")]],
            Field(max_length=_MAX_PARTS),
            Tag("parts"),
        ],
        # Else what is wrong with a part would be said of the text that it is not.
        Discriminator(lambda content: "parts" if isinstance(content, list) else "text"),
    ]
    name: str | None = None


class _StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = False


class ChatFields(_Strict):
    """The fields of `/v1/chat/completions` that are known; sampling's have no effect on a model that does not sample."""

    model: str = Field(max_length=500)
    messages: list[_ChatMessage] = Field(min_length=1, max_length=_MAX_PARTS)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_K)
    n: int | None = Field(None, ge=1, le=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    user: str | None = None
    chat_template_kwargs: dict[str, object] | None = None  # vLLM's; kovqa's own client sends it


# What changes nothing: who asked, where to draw from if it were drawn, and how a template that is not used thinks.
_WITHOUT_EFFECT = ("user", "seed", "chat_template_kwargs")
_GREEDY_VALUES = {"temperature": 0, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}


@dataclass(frozen=True)
class ChatQuestion:
    """What was asked.

    Attributes:
        image: a file's bytes.
        question: the texts of the message; of a captioner not read.
        fields: all of the request.
        ignored: names of fields that the model cannot follow.
    """

    image: bytes
    question: str
    fields: ChatFields
    ignored: tuple[str, ...]


def check_chat_fields(body: object) -> ChatFields:
    """The fields of a request.

    Raises:
        RefusedRequest: 400.
    """
    return check_fields(ChatFields, body)


async def read_chat_question(fields: ChatFields, model: ServedModel, fetch_image: FetchImage) -> ChatQuestion:
    """The image and the question of a request: of one message of a user, the only one.

    Raises:
        RefusedRequest: 400: more than one message or image, no image, or no question.
    """
    chat_message = fields.messages[0]
    if len(fields.messages) > 1 or chat_message.role != "user":
        raise RefusedRequest(
            400,
            message(
                "serve.one-message", "these models read one message, of the user: an image and a question"
            ),
        )
    parts = chat_message.content
    texts = (
        [parts] if isinstance(parts, str) else [part.text for part in parts if isinstance(part, _TextPart)]
    )
    urls = [] if isinstance(parts, str) else [p.image_url.url for p in parts if isinstance(p, _ImagePart)]
    if len(urls) != 1:
        raise RefusedRequest(
            400,
            message("serve.one-image", "{count} images; a question here is about one image", count=len(urls)),
        )
    question = without_instruction("\n".join(texts).strip())
    ignored = [name for name, value in _GREEDY_VALUES.items() if getattr(fields, name) not in (None, value)]
    # Of a classifier an answer is one token, whatever it says.
    limits = ("max_tokens", "max_completion_tokens") if model.family == "vlm" else ()
    ignored += [name for name in (*limits, "stop") if getattr(fields, name) is not None]
    if fields.top_logprobs and not fields.logprobs:
        ignored.append("top_logprobs")
    if fields.stream_options is not None and fields.stream_options.include_usage:
        ignored.append("stream_options.include_usage")  # no tokens are counted
    if model.task == "caption" and question:
        ignored.append("messages.text")
    return ChatQuestion(await read_image_text(urls[0], fetch_image), question, fields, tuple(ignored))


def without_instruction(text: str) -> str:
    """A question without the line that asks for a short answer.

    `kovqa predict --server` and others put it below a question for a model that writes freely; ours put it there
    themselves, and a classifier was never trained with it.
    """
    question, _, last = text.rpartition("\n")
    return question.strip() if last.strip() in ANSWER_INSTRUCTIONS.values() else text


# ------------------------------------------------------------------------------------------ replies


@dataclass(frozen=True)
class ChatReply:
    """What all parts of a reply share: OpenAI's `id`, `created` and `model`."""

    id: str
    created: int
    model: str

    @classmethod
    def new(cls, model: ServedModel) -> ChatReply:
        """Of a request that is answered now."""
        return cls(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), model.id)

    def whole(self, answer: Answer, asked: ChatQuestion) -> dict[str, object]:
        """The reply of a request that does not stream."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": _logprobs(answer, asked.fields),
            "finish_reason": "stop",
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": None, **_unread(answer, asked)}

    def chunk(
        self, delta: dict[str, object], *, logprobs: object = None, finish_reason: str | None = None
    ) -> bytes:
        """One event of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def end(self, answer: Answer, asked: ChatQuestion) -> bytes:
        """The last events of a stream."""
        logprobs = _logprobs(answer, asked.fields)
        choice = {"index": 0, "delta": {}, "logprobs": logprobs, "finish_reason": "stop"}
        last = {**self._head("chat.completion.chunk"), "choices": [choice], **_unread(answer, asked)}
        return _event(last) + b"data: [DONE]\n\n"

    def _head(self, kind: str) -> dict[str, object]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def error_event(refused: RefusedRequest) -> bytes:
    """What goes wrong after a stream has begun."""
    return _event(error_fields(refused.status, refused.text))


def _unread(answer: Answer, asked: ChatQuestion) -> dict[str, object]:
    """What was not read of a request."""
    return {"ignored": asked.ignored, "question_cut": answer.is_cut}


def _event(value: object) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def _logprobs(answer: Answer, fields: ChatFields) -> dict[str, object] | None:
    """The answer as one token, whose probability is its score; of a model that writes freely the mean of its tokens'."""
    if not fields.logprobs or math.isnan(answer.score):
        return None
    likeliest: Sequence[tuple[str, float]] = answer.likeliest or ((answer.text, answer.score),)
    shown = [_token(text, score) for text, score in likeliest[: fields.top_logprobs or 0]]
    return {"content": [{**_token(answer.text, answer.score), "top_logprobs": shown}], "refusal": None}


def _token(text: str, score: float) -> dict[str, object]:
    # OpenAI's own stand-in for a probability of 0: JSON has no infinity.
    logprob = math.log(score) if score > 0 else -9999.0
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
