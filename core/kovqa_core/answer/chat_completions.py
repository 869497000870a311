"""One question to a server of models, as OpenAI's chat completions: vLLM, SGLang and others take them.

The prompt is that of a vision language model of ours; the server applies the model's chat template and shrinks
images as it was configured to. Nothing here needs torch.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field

from kovqa_core.answer.server_requests import (
    ModelServer,
    RefusedQuestion,
    UnreadableImage,
    request_reply,
)
from kovqa_core.data.answers import tidy_answer
from kovqa_core.data.example import Answer, Example
from kovqa_core.data.image_io import read_image
from kovqa_core.data.image_source import read_image_bytes
from kovqa_core.data.question_prompts import DEFAULT_INSTRUCTION, DEFAULT_MAX_NEW_TOKENS, build_prompt
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.messages import message
from kovqa_core.net.request import redact_url
from kovqa_core.progress import OnProgress, ignore_progress

# What we read of a server's replies; whatever else is in them is ignored.


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


@dataclass(frozen=True)
class ChatPrompt:
    """How a model on a server is asked.

    Attributes:
        instruction: the line below a question; see `build_prompt`.
        max_tokens: of an answer.
        lists_choices: the model reads the question's choices, and is asked for a letter; what it writes is the answer.
    """

    instruction: str = DEFAULT_INSTRUCTION
    max_tokens: int = DEFAULT_MAX_NEW_TOKENS
    lists_choices: bool = False

    def json_fields(self) -> dict[str, object]:
        """What answers must have in common to stand in one file."""
        choices = {"choices": True} if self.lists_choices else {}
        return {"instruction": self.instruction, "max_tokens": self.max_tokens, **choices}


DEFAULT_PROMPT = ChatPrompt()


_OUT_OF_TOKENS = "length"  # the reason of a reply that ends where its tokens do


class NoText(DataError):
    """A reply that holds no text: the model thought until its tokens were used up, or a filter took it away."""


class WrittenText(NamedTuple):
    """What a model wrote, and whether its tokens ran out before its end."""

    text: str
    is_cut: bool


def request_chat_answer(
    server: ModelServer,
    model: str,
    example: Example,
    image_folder: Path,
    on_progress: OnProgress = ignore_progress,
    prompt: ChatPrompt = DEFAULT_PROMPT,
) -> Answer:
    """The answer to one question.

    Args:
        server: where to.
        model: its name there.
        example: the question.
        image_folder: folder that its image path starts from.
        on_progress: called when the server is out of reach and the request will be repeated.
        prompt: how it is asked.

    Raises:
        UnreadableImage: the image cannot be read.
        KovqaError: as `request_reply`.
    """
    try:
        body = _chat_request(model, example, image_folder, prompt)
    except DataError as error:
        raise UnreadableImage(error.message, error.hint) from None
    completion = request_reply(server, "/chat/completions", _ChatCompletion, body, on_progress)
    return _answer_of(completion, server)


def _chat_request(model: str, example: Example, image_folder: Path, prompt: ChatPrompt) -> dict[str, object]:
    """A chat completion's request; thinking is switched off."""
    image = {"type": "image_url", "image_url": {"url": image_data_url(image_folder / example.image)}}
    choices = tuple(map(to_nfc, example.choices)) if prompt.lists_choices else ()
    text = build_prompt(to_nfc(example.question), prompt.instruction, choices, to_nfc(example.context))
    question = {"type": "text", "text": text}
    return {
        "model": model,
        "messages": [{"role": "user", "content": [image, question]}],
        "temperature": 0,  # greedy, as ours without options
        "max_tokens": prompt.max_tokens,
        "logprobs": True,  # of the chosen tokens: the score
        # Qwen3 and its like would spend the few tokens of an answer on thinking; other templates ignore it.
        "chat_template_kwargs": {"enable_thinking": False},
    }


def request_chat_text(
    server: ModelServer,
    model: str,
    text: str,
    max_tokens: int,
    image: str | None = None,
    on_progress: OnProgress = ignore_progress,
) -> WrittenText:
    """What a model writes to a text, greedily.

    Args:
        server: where to.
        model: its name there.
        text: the whole message.
        max_tokens: of the reply.
        image: `data:` URL of an image that is shown with it; None: none is.
        on_progress: called when the server is out of reach and the request will be repeated.

    Raises:
        NoText: a reply without a text.
        KovqaError: as `request_reply`.
    """
    shown = [] if image is None else [{"type": "image_url", "image_url": {"url": image}}]
    content: object = [*shown, {"type": "text", "text": text}] if shown else text
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    try:
        completion = request_reply(server, "/chat/completions", _ChatCompletion, body, on_progress)
    except RefusedQuestion as refused:
        if "max_completion_tokens" not in str(refused.message):
            raise
        # OpenAI's own server has another name for it since its models think.
        body["max_completion_tokens"] = body.pop("max_tokens")
        completion = request_reply(server, "/chat/completions", _ChatCompletion, body, on_progress)
    return WrittenText(
        _text_of(completion, server), is_cut=completion.choices[0].finish_reason == _OUT_OF_TOKENS
    )


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
        data = read_image_bytes(path)
    else:
        image_format, stream = "JPEG", io.BytesIO()
        opened.pixels.save(stream, "JPEG", quality=95, subsampling=0)
        data = stream.getvalue()
    return f"data:image/{image_format.lower()};base64,{base64.b64encode(data).decode()}"


def _text_of(completion: _ChatCompletion, server: ModelServer) -> str:
    choice = completion.choices[0]
    text = choice.message.content
    if not isinstance(text, str):
        raise NoText(
            message(
                "answer.no-text",
                "{url} gives no text ({finish_reason!r})",
                url=redact_url(server.url),
                finish_reason=choice.finish_reason,
            ),
            message("answer.no-text.hint", "if it is a thinking model, serve it with thinking switched off"),
        )
    return text


def _answer_of(completion: _ChatCompletion, server: ModelServer) -> Answer:
    """The answer in a chat completion; its score is the mean probability of its tokens, nan if not reported."""
    text, choice = _text_of(completion, server), completion.choices[0]
    tokens = (choice.logprobs and choice.logprobs.content) or []
    # A few servers report a tiny positive log-probability, rounded in bf16.
    probabilities = [math.exp(min(0.0, token.logprob)) for token in tokens]
    score = sum(probabilities) / len(probabilities) if probabilities else math.nan
    if choice.finish_reason == _OUT_OF_TOKENS:
        text = text.rstrip(_REPLACEMENT_CHARACTER)
    return Answer(tidy_answer(text), score)
