"""What a client asks: a form (multipart) or JSON with the same names, read strictly.

An unknown name is refused rather than passed over: who misspells `question` should hear of it. No field is ever taken
for a path or, unless the server's user allows the host, an address.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from kovqa_core.bounded_json import parse_json
from kovqa_core.data.decoding import CHOICE_LETTERS, parse_choices
from kovqa_core.messages import Message, message
from kovqa_core.serve.served_models import MAX_QUESTION_LETTERS, MAX_TOP_K, ServedModel
from kovqa_core.web.http_errors import RefusedRequest

# The bytes of an image that a request names by an address.
FetchImage = Callable[[str], Awaitable[bytes]]
# It logs what clients send; without a handler, Python prints such lines among ours.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())
_DATA_URL = re.compile(r"data:[\w.+/-]*(;[\w.+=-]+)*;base64,", re.IGNORECASE | re.ASCII)


class AskFields(BaseModel):
    """The fields of `/v1/vqa`, `/v1/caption` and `/v1/explain`; `image` is a data URL, base64 or an allowed address."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: str = Field(min_length=1)
    question: str = Field("", max_length=MAX_QUESTION_LETTERS)
    context: str = Field("", max_length=MAX_QUESTION_LETTERS)
    choices: list[str] = Field(default_factory=list, max_length=len(CHOICE_LETTERS))
    model: str = Field("", max_length=500)
    top_k: int = Field(1, ge=1, le=MAX_TOP_K)
    method: Literal["auto", "occlusion", "rollout"] = "auto"


@dataclass(frozen=True)
class AskedQuestion:
    """One request, its image in memory.

    Attributes:
        image: a file's bytes; not looked at yet.
        question: "" where there is none.
        context: to be read before the question; "": nothing.
        choices: the only possible answers; none: any.
        model: the name given; "": none.
        top_k: likeliest answers that are wanted.
        method: of an explanation.
    """

    image: bytes
    question: str
    context: str
    choices: tuple[str, ...]
    model: str
    top_k: int
    method: str


FieldsType = TypeVar("FieldsType", bound=BaseModel)


async def read_asked_question(request: Request, fetch_image: FetchImage) -> AskedQuestion:
    """The fields of a request.

    Raises:
        RefusedRequest: 400 for a field that is missing, unknown or wrong; 415 for neither a form nor JSON.
        DataError: choices among which nobody could choose.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        fields = check_fields(AskFields, await read_json_body(request))
        image = await read_image_text(fields.image, fetch_image)
    elif kind == "multipart/form-data":
        image, values = await _read_form(request)
        fields = check_fields(AskFields, {**values, "image": "(file)"})
    else:
        raise RefusedRequest(
            415,
            message(
                "serve.content-type", "Content-Type is {kind!r}; send multipart/form-data or application/json",
                kind=kind,
            ),
        )  # fmt: skip
    choices = parse_choices(fields.choices, "choices") if fields.choices else ()
    return AskedQuestion(
        image, fields.question, fields.context, choices, fields.model, fields.top_k, fields.method
    )


def require_read_fields(asked: AskedQuestion, model: ServedModel, *, explains: bool = False) -> None:
    """See that a request brings nothing that would not be read.

    Args:
        asked: the request.
        model: that it asks.
        explains: an explanation is asked for, not an answer.

    Raises:
        RefusedRequest: 400.
    """
    reads = [] if explains else list(model.reads)
    reads += ["question"] * (model.task == "vqa") + ["method"] * explains
    given = {
        "question": asked.question.strip(), "context": asked.context.strip(), "choices": asked.choices,
        "method": asked.method != "auto",
    }  # fmt: skip
    for name, is_given in given.items():
        if is_given and name not in reads:
            text = message("serve.not-read", "{model} reads no {field} here", model=model.id, field=name)
            raise RefusedRequest(400, text)


async def read_json_body(request: Request) -> object:
    """The JSON of a request, bounded as every JSON of others.

    Raises:
        RefusedRequest: 400.
    """
    try:
        return parse_json(await request.body(), unique_names=True)
    except ValueError as error:
        raise RefusedRequest(
            400, message("serve.not-json", "the request is not JSON: {problem}", problem=error)
        ) from None


async def _read_form(request: Request) -> tuple[bytes, dict[str, object]]:
    """The image file of a form, and its other fields; numbers are read as such, and choices with | between them."""
    values: dict[str, object] = {}
    image: bytes | None = None
    async with request.form(max_files=1, max_fields=len(AskFields.model_fields)) as form:
        for name, value in form.multi_items():
            if name in values or (name == "image" and image is not None):
                raise RefusedRequest(400, message("serve.field-twice", "{field} stands twice", field=name))
            if name == "image":
                if not isinstance(value, UploadFile):
                    raise RefusedRequest(
                        400, message("serve.image-not-a-file", "image is not a file; a form sends it as one")
                    )
                image = await value.read()
            else:
                values[name] = value if isinstance(value, str) else "(file)"
    if image is None:
        raise RefusedRequest(400, message("serve.no-image", "the field image is missing"))
    if isinstance(choices := values.get("choices"), str):
        values["choices"] = choices.split("|")
    top_k = values.get("top_k")
    if isinstance(top_k, str) and re.fullmatch(r"\d{1,9}", top_k, re.ASCII):
        values["top_k"] = int(top_k)
    return image, values


def check_fields(fields: type[FieldsType], values: object) -> FieldsType:
    """Values as the fields of a request.

    Raises:
        RefusedRequest: 400, with the first thing that is wrong.
    """
    try:
        return fields.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise RefusedRequest(400, _field_problem(first["type"], name, first["msg"], fields)) from None


def _field_problem(kind: str, name: str, problem: str, fields: type[BaseModel]) -> Message:
    if kind == "extra_forbidden":
        return message(
            "serve.unknown-field", "unknown field {field!r}; known: {names}",
            field=name, names=", ".join(fields.model_fields),
        )  # fmt: skip
    if kind == "missing":
        return message("serve.missing-field", "the field {field} is missing", field=name)
    if not name:
        return message("serve.not-an-object", "the request is not a JSON object")
    return message("serve.bad-field", "{field}: {problem}", field=name, problem=problem)


async def read_image_text(text: str, fetch_image: FetchImage) -> bytes:
    """The bytes of an image that a text holds, or names by an address.

    Raises:
        RefusedRequest: 400: neither; or see `fetch_image`.
    """
    if re.match(r"https?://", text, re.IGNORECASE):
        return await fetch_image(text)
    found = _DATA_URL.match(text)
    try:
        # The program base64 breaks its lines.
        return base64.b64decode("".join((text[found.end() :] if found else text).split()), validate=True)
    except (binascii.Error, ValueError):
        raise RefusedRequest(
            400, message("serve.not-base64", "image is neither a data: URL of base64 nor base64")
        ) from None


async def refuse_address(url: str) -> bytes:
    """What a server does with an address, unless its user allows the host.

    Raises:
        RefusedRequest: 400, always.
    """
    raise RefusedRequest(
        400,
        message(
            "serve.no-addresses",
            "this server fetches no images; send the image itself, as a data: URL or in a form",
        ),
    )
