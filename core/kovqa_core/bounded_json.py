"""JSON of others, bounded: what a hostile or damaged text could make of memory, time or recursion is refused first.

The one place that calls Python's reader; data of any size go through `data/json_stream.py`, which uses these bounds.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from kovqa_core.messages import Message, message

# Lists and objects inside one another. Python's recursion ends at 1,000, in whoever walks over them.
MAX_DEPTH = 200
SURELY_SHALLOW_CHARS = 2 * MAX_DEPTH  # of a text that has no room for more brackets
MAX_INTEGER_DIGITS = 308  # more are no float either
MAX_LINE_CHARS = 1 << 26  # of a line, or of one record of a longer text
MAX_DOCUMENT_BYTES = 1 << 29  # of a file that is read as a whole


def parse_json(text: str | bytes, *, unique_names: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        text: of a file or line whose size is bounded already; bytes are UTF-8, -16 or -32, with or without a mark.
        unique_names: is a name that stands twice in an object an error? Else the last one counts.

    Raises:
        ValueError: not JSON (`json.JSONDecodeError`, with the place), nested too deep, too long a number.
    """
    if not isinstance(text, str):
        text = text.decode(json.detect_encoding(text))
    try:
        value = (_UNIQUE_DECODER if unique_names else _DECODER).decode(text.removeprefix("\ufeff"))
    except RecursionError:
        raise ValueError(nested_too_deep()) from None
    check_depth(value, text)
    return value


def check_depth(value: Any, text: str, start: int = 0, end: int | None = None) -> None:
    """Check that what a text held is not nested too deep to be walked over.

    Args:
        value: what was read.
        text: its text is in it, from `start` to `end`.
        start: first character.
        end: behind the last; None: at the end.

    Raises:
        ValueError: it is.
    """
    end = len(text) if end is None else end
    # Nearly all texts are too short for it, or have fewer brackets: two looks in C.
    if (
        end - start <= SURELY_SHALLOW_CHARS
        or text.count("[", start, end) + text.count("{", start, end) <= MAX_DEPTH
    ):
        return
    level, depth = [value], 0
    while level:
        if depth == MAX_DEPTH:
            raise ValueError(nested_too_deep())
        depth += 1
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
            if isinstance(child, dict | list)
        ]


def nested_too_deep() -> Message:
    """What is wrong with a value that nobody could walk over."""
    return message("data.json-too-deep", "lists or objects nested too deep")


def parse_integer(digits: str) -> int:
    """An integer of a length that every number has.

    Raises:
        ValueError: it is longer; Python itself gives up at 4,300 digits, after a time that grows with their square.
    """
    if len(digits) > MAX_INTEGER_DIGITS:
        raise ValueError(
            message("data.json-long-integer", "a number of {digits:,} digits", digits=len(digits.lstrip("-")))
        )
    return int(digits)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(message("data.json-name-twice", "{name!r} stands twice", name=twice))
    return value


_DECODER = json.JSONDecoder(parse_int=parse_integer)
_UNIQUE_DECODER = json.JSONDecoder(parse_int=parse_integer, object_pairs_hook=_unique_pairs)
