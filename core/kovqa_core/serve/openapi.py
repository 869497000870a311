"""`/openapi.json`: what the routes take and give, as OpenAPI 3.1; requests by the very classes that read them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from kovqa_core import __version__
from kovqa_core.serve.ask_requests import AskFields
from kovqa_core.serve.chat_requests import ChatFields

_SCORE = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_LIKELIEST = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"answer": {"type": "string"}, "score": _SCORE},
        "required": ["answer", "score"],
    },
}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("message", "type", "code")},
            "required": ["message", "type", "code"],
        }
    },
    "required": ["error"],
}
# Every operation that asks a model can end in these; the others only in the guard's.
_GUARD_ERRORS = {401: "No token, or a wrong one.", 403: "Another host or site."}
_ASK_ERRORS = {
    400: "The request is wrong.",
    404: "No such model, or none that does this.",
    408: "It did not arrive in time.",
    413: "It is too large.",
    415: "It is of another type.",
    429: "Too many requests wait; Retry-After says when to come again.",
    500: "The server failed.",
    503: "Too many large requests at once; Retry-After says when to come again.",
    504: "No answer in time.",
}


def openapi_document() -> dict[str, object]:
    """The document."""
    ask = _fields_schema(AskFields)
    asked = {"requestBody": _ask_body(ask)}
    chat = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _fields_schema(ChatFields)}},
        }
    }
    paths: dict[str, object] = {
        "/": _get("The page.", "text/html", {"type": "string"}, is_open=True),
        "/healthz": _get("Does the server answer?", "application/json", _object("status"), is_open=True),
        "/metrics": _get("Counts, for Prometheus.", "text/plain", {"type": "string"}),
        "/openapi.json": _get("This document.", "application/json", {"type": "object"}),
        "/v1/models": _get("The models, as OpenAI lists them.", "application/json", _object("object", "data")),
        "/v1/models/{name}": _get(
            "One model.", "application/json",
            _object("id", "object", "created", "owned_by", "task", "family", "top_k", "reads"), ("name", "string"),
        ),
        "/v1/examples": _get("Images to try.", "application/json", _object("schema", "examples")),
        "/v1/examples/{number}.png": _get(
            "One of them.", "image/png", {"type": "string", "format": "binary"}, ("number", "integer")
        ),
        "/v1/vqa": _post("Answer a question about an image.", asked, _answer_schema("answer")),
        "/v1/caption": _post("Describe an image.", asked, _answer_schema("caption")),
        "/v1/explain": _post("Where an answer comes from.", asked, _EXPLANATION),
        "/v1/transcribe": _post("What is said in a sound.", _SPEECH, _object("schema", "text", "seconds", "queue_seconds")),
        "/v1/chat/completions": _post("OpenAI's form of a question.", chat, _CHAT),
    }  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {"title": "kovqa serve", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        # Either: a server of one machine alone may have no token.
        "security": [{"token": []}, {}],
    }


def _fields_schema(fields: type[BaseModel]) -> dict[str, object]:
    schema = fields.model_json_schema()
    definitions = schema.pop("$defs", {})
    resolved = _resolve(schema, definitions)
    assert isinstance(resolved, dict)
    return resolved


def _resolve(value: object, definitions: Mapping[str, object]) -> object:
    """A schema without references, which would point into itself and not into this document."""
    if isinstance(value, dict):
        if "$ref" in value:
            return _resolve(definitions[str(value["$ref"]).rpartition("/")[2]], definitions)
        kept = {name: child for name, child in value.items() if name != "discriminator"}
        return {name: _resolve(child, definitions) for name, child in kept.items()}
    return [_resolve(child, definitions) for child in value] if isinstance(value, list) else value


def _ask_body(schema: dict[str, object]) -> dict[str, object]:
    properties = schema["properties"]
    assert isinstance(properties, dict)
    form = {**schema, "properties": {**properties, "image": {"type": "string", "format": "binary"}}}
    return {
        "required": True,
        "content": {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}},
    }


def _object(*names: str) -> dict[str, object]:
    return {"type": "object", "required": list(names)}


def _answer_schema(key: str) -> dict[str, object]:
    seconds = {"type": "number", "minimum": 0}
    properties = {
        "schema": {"type": "integer"}, "model": {"type": "string"}, key: {"type": "string"}, "score": _SCORE,
        "likeliest": _LIKELIEST, "question_cut": {"type": "boolean"}, "seconds": seconds, "queue_seconds": seconds,
    }  # fmt: skip
    return {"type": "object", "properties": properties, "required": list(properties)}


_EXPLANATION = _object(
    "schema", "model", "heat", "words", "method", "doubt", "answer", "score", "seconds", "queue_seconds"
)
_CHAT = _object("id", "object", "created", "model", "choices", "usage", "ignored")
_SPEECH = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"speech": {"type": "string", "format": "binary"}},
                    "required": ["speech"],
                    "additionalProperties": False,
                }
            }
        },
    }
}


def _get(
    summary: str,
    media_type: str,
    schema: Mapping[str, object],
    parameter: tuple[str, str] | None = None,
    *,
    is_open: bool = False,
) -> dict[str, object]:
    errors = {403: _GUARD_ERRORS[403]} if is_open else _GUARD_ERRORS
    errors = {**errors, 404: "There is none."} if parameter else errors
    operation: dict[str, object] = {
        "summary": summary, "responses": _responses(media_type, schema, errors),
    }  # fmt: skip
    if is_open:
        operation["security"] = []
    if parameter:
        name, kind = parameter
        operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": kind}}]
    return {"get": operation}


def _post(summary: str, body: Mapping[str, object], schema: Mapping[str, object]) -> dict[str, object]:
    errors = {**_ASK_ERRORS, **_GUARD_ERRORS}
    return {"post": {"summary": summary, **body, "responses": _responses("application/json", schema, errors)}}


def _responses(media_type: str, schema: Mapping[str, object], errors: Mapping[int, str]) -> dict[str, object]:
    refused = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    replies: dict[str, object] = {
        "200": {"description": "As asked.", "content": {media_type: {"schema": schema}}}
    }
    return replies | {
        str(status): {"description": text, "content": refused} for status, text in sorted(errors.items())
    }
