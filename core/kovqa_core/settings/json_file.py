"""A JSON file of ours as a dataclass: the one place that checks shape and types, and names file and key."""

from __future__ import annotations

import stat
from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from kovqa_core.errors import DataError
from kovqa_core.files import read_json
from kovqa_core.messages import Message, message
from kovqa_core.messages.one_line import cut_value
from kovqa_core.settings.strict_yaml import dotted_path
from kovqa_core.settings.validation_texts import validation_text

Content = TypeVar("Content")
_MAX_SHOWN_VALUE = 60  # letters of a wrong value in a message


def read_json_as(path: Path, content: type[Content], hint: str = "") -> Content:
    """What a JSON file says; keys that `content` does not have are ignored, for a later version may write more.

    Args:
        path: the file.
        content: a dataclass, whose annotations are the types.
        hint: of the error.

    Raises:
        DataError: it cannot be read, is not JSON, lacks a key, or a value has another type.
    """
    if _is_special_file(path):
        raise DataError(message("settings.not-a-file", "{file} is not a file", file=path), hint)
    try:
        return check_content(read_json(path), content)
    except ValueError as error:
        raise DataError(
            message("settings.wrong-content", "{file}: {problem}", file=path, problem=error), hint
        ) from None


def _is_special_file(path: Path) -> bool:
    """Is it a pipe or a device? To read one would wait, perhaps for ever."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # reading it says what is wrong
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_content(value: object, content: type[Content]) -> Content:
    """A value of JSON as a dataclass; see `read_json_as`.

    Raises:
        ValueError: names the first key that is missing or has another type.
    """
    try:
        return _adapter(content).validate_python(value)  # type: ignore[arg-type]  # a class is hashable
    except ValidationError as error:
        raise ValueError(_problem(error)) from None


@cache  # to build one takes longer than to use it
def _adapter(content: type[Content]) -> TypeAdapter[Content]:
    return TypeAdapter(content)


def _problem(error: ValidationError) -> Message:
    first = error.errors(include_url=False)[0]
    key = dotted_path(first["loc"])
    if first["type"] == "missing":
        return message("settings.content-key-missing", "the key {key} is missing", key=key)
    shown = cut_value(repr(first["input"]), _MAX_SHOWN_VALUE)  # half characters are escapes in it
    reason = validation_text(first)
    if first["type"] == "dataclass_type":
        reason = message("settings.content-no-object", "an object is expected: {{…}}")
    problem = message(
        "settings.content-wrong-type", "{problem} (given: {value})", problem=reason, value=shown
    )
    return message("settings.content-key", "{key}: {problem}", key=key, problem=problem) if key else problem
