"""JSON's values as the files people have are read: nothing that Python's own reader keeps silent about.

A doubled key is an error, a number may have any length, and where numbers are read as text, NaN and Infinity
are empty values.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from json.scanner import make_scanner
from typing import Any

from kovqa_core.bounded_json import MAX_INTEGER_DIGITS, check_depth, nested_too_deep
from kovqa_core.messages import message

JsonValue = Any  # JSON's values have no type before somebody looks at them
JsonRecord = dict[str, JsonValue]
Scan = Callable[[str, int], tuple[JsonValue, int]]  # a text, a position -> the value there, where it ends


def _object_of_pairs(pairs: list[tuple[str, JsonValue]]) -> JsonRecord:
    """An object whose keys differ; Python's own reader would keep the last of two and say nothing."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(message("data.json-key-twice", "key '{key}' appears twice", key=twice))
    return values


def _parse_int(digits: str) -> int | str:
    """A number; the text of one that is too long for a number: it is an id."""
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else digits


def _no_value(constant: str) -> None:
    """NaN, Infinity and -Infinity are not JSON: pandas and Python write them where there is no value."""


class NumberText(str):
    """A number as the text it is written with: JSON's 1, not its "1"."""

    __slots__ = ()


# NaN and Infinity stay floats: whoever wants a number has to look at it anyway.
VALUE_DECODER = json.JSONDecoder(object_pairs_hook=_object_of_pairs, parse_int=_parse_int)
# Numbers as they are written: 1.0 stays "1.0".
TEXT_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_of_pairs, parse_int=NumberText, parse_float=NumberText, parse_constant=_no_value
)


@dataclass(frozen=True)
class Scanners:
    """Two scanners of one kind of values: one that looks for doubled keys, a faster one that does not."""

    strict: Scan
    fast: Scan


def _scanners(strict: json.JSONDecoder) -> Scanners:
    # The scanner in C takes what it needs from the decoder's attributes; typeshed wants another type.
    fast = json.JSONDecoder(
        parse_int=strict.parse_int, parse_float=strict.parse_float, parse_constant=strict.parse_constant
    )
    return Scanners(make_scanner(strict), make_scanner(fast))  # type: ignore[arg-type]


VALUE_SCANNERS = _scanners(VALUE_DECODER)
TEXT_SCANNERS = _scanners(TEXT_DECODER)


def decode_json_line(line: str, *, as_text: bool = False) -> JsonValue:
    """The value that a line of JSON holds.

    Args:
        line: with or without its line end.
        as_text: numbers as the text they are written with.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        value = (TEXT_DECODER if as_text else VALUE_DECODER).decode(line)
    except RecursionError:
        raise ValueError(nested_too_deep()) from None
    check_depth(value, line)
    return value
