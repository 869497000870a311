"""What is wrong with a setting, by the key of a message: pydantic's words, and those of our own checks.

The English is pydantic's, word for word, so that it stays what it was; what is not known here stays English.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

from pydantic_core import ErrorDetails

from kovqa_core.messages import Message, error_text, message

_INPUT = "Input should be "
_TEXTS: dict[str, Callable[[Mapping[str, Any]], Message]] = {
    "int_type": lambda _: message("settings.not-an-integer", "Input should be a valid integer"),
    "int_parsing": lambda _: message(
        "settings.no-integer-in-text",
        "Input should be a valid integer, unable to parse string as an integer",
    ),
    "int_from_float": lambda _: message(
        "settings.integer-with-fraction",
        "Input should be a valid integer, got a number with a fractional part",
    ),
    "float_type": lambda _: message("settings.not-a-number", "Input should be a valid number"),
    "float_parsing": lambda _: message(
        "settings.no-number-in-text", "Input should be a valid number, unable to parse string as a number"
    ),
    "finite_number": lambda _: message("settings.not-finite", "Input should be a finite number"),
    "bool_type": lambda _: message("settings.not-a-bool", "Input should be a valid boolean"),
    "bool_parsing": lambda _: message(
        "settings.no-bool-in-text", "Input should be a valid boolean, unable to interpret input"
    ),
    "string_type": lambda _: message("settings.not-a-string", "Input should be a valid string"),
    "list_type": lambda _: message("settings.not-a-list", "Input should be a valid list"),
    "tuple_type": lambda _: message("settings.not-a-tuple", "Input should be a valid tuple"),
    "dict_type": lambda _: message("settings.not-a-dict", "Input should be a valid dictionary"),
    "model_type": lambda context: message(
        "settings.not-keys-and-values", "Input should be a valid dictionary or instance of {name}",
        name=context["class_name"],
    ),
    "greater_than": lambda context: message(
        "settings.not-greater", "Input should be greater than {bound}", bound=_bound(context["gt"])
    ),
    "greater_than_equal": lambda context: message(
        "settings.too-small", "Input should be greater than or equal to {bound}", bound=_bound(context["ge"])
    ),
    "less_than": lambda context: message(
        "settings.not-less", "Input should be less than {bound}", bound=_bound(context["lt"])
    ),
    "less_than_equal": lambda context: message(
        "settings.too-large", "Input should be less than or equal to {bound}", bound=_bound(context["le"])
    ),
    "literal_error": lambda context: message(
        "settings.not-a-choice", "Input should be {choices}", choices=_choices(context["expected"])
    ),
}  # fmt: skip
_KINDS = {
    "a valid integer": message("settings.kind-integer", "a valid integer"),
    "a valid number": message("settings.kind-number", "a valid number"),
    "a valid string": message("settings.kind-string", "a valid string"),
    "a valid list": message("settings.kind-list", "a valid list"),
    "a valid boolean": message("settings.kind-bool", "true or false"),
}


def validation_text(details: ErrorDetails) -> str:
    """What is wrong with one value: a message, where its words are known here."""
    context = details.get("ctx", {})
    if details["type"] == "value_error":
        return error_text(context["error"])
    text = _TEXTS[details["type"]](context) if details["type"] in _TEXTS else details["msg"]
    return text if text == details["msg"] else details["msg"]


def alternatives_text(errors: list[ErrorDetails], first: ErrorDetails) -> Message:
    """What is asked of a key that may have several kinds of values, for each of which pydantic has an error.

    It names the kind as if it were a key below: compile.literal['auto'], compile.bool.
    """
    of_key = [each["msg"] for each in errors if each["loc"][:-1] == first["loc"][:-1]]
    asked = [text.removeprefix(_INPUT).partition(",")[0] for text in of_key]
    kinds = reduce(_kind_or_kind, (_KINDS.get(kind, kind) for kind in asked))
    return message("settings.wanted-kinds", "Input should be {kinds}", kinds=kinds)


def _kind_or_kind(first: str, other: str) -> Message:
    return message("settings.kind-or-kind", "{first} or {other}", first=first, other=other)


def _choices(expected: str) -> str:
    """pydantic's list of choices: `'a', 'b' or 'c'`."""
    others, joined, last = expected.rpartition(" or ")
    return _kind_or_kind(others, last) if joined else expected


def _bound(value: float) -> str:
    """A number as pydantic writes it."""
    return f"{value:g}" if isinstance(value, float) and value == int(value) else str(value)
