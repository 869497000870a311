"""Messages on their way through a file or a pipe: the English text as ever, and beside it what a translation needs.

A worker's error (`error.json`) and its events are read by another process, whose user may want another language than
English. A packed message is plain JSON; whoever reads it may leave it aside, and files without it are read as before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, SupportsIndex

from kovqa_core.messages import JoinedMessage, Message, cut_field, error_text, join_messages

PackedMessage = dict[str, object]
_KEY = re.compile(r"[a-z0-9_]+\.[a-z0-9.-]+")  # whose first part is the name of a catalogue, and no path


def pack_texts(value: object) -> object:
    """A message, or a list with messages, as JSON; None of any other value, which needs no more than itself."""
    if isinstance(value, list):
        packed = [pack_message(each) if isinstance(each, Message) else None for each in value]
        return packed if any(packed) else None
    return pack_message(value) if isinstance(value, Message) else None


def unpack_texts(value: Any, packed: object) -> Any:
    """A text or a list of texts with what `pack_texts` made of it: see `unpack_message`."""
    if isinstance(value, list) and isinstance(packed, list) and len(value) == len(packed):
        return [unpack_message(text, each) for text, each in zip(value, packed, strict=True)]
    return unpack_message(value, packed) if isinstance(value, str) else value


def pack_message(text: Message) -> PackedMessage:
    """A message as JSON."""
    if isinstance(text, JoinedMessage):
        return {
            "text": str(text),
            "separator": text.separator,
            "parts": [_pack_value(part) for part in text.parts],
        }
    return {
        "text": str(text),
        "key": text.key,
        "fields": {name: _pack_value(text.fields[name]) for name in text.fields},
    }


def unpack_message(text: str, packed: object) -> str:
    """A text as the message it was; as it is, where something else stands beside it.

    Args:
        text: in English.
        packed: of a file, which may hold anything.
    """
    if not isinstance(packed, Mapping) or packed.get("text") != text:
        return text
    key, fields, parts, separator = (packed.get(name) for name in ("key", "fields", "parts", "separator"))
    if isinstance(parts, list) and isinstance(separator, str):
        joined = join_messages(separator, map(_unpack_part, parts))
        return joined if joined == text else text
    if not (isinstance(key, str) and _KEY.fullmatch(key) and isinstance(fields, Mapping)):
        return text
    unpacked = Message(text)
    unpacked.key, unpacked.fields = key, {str(name): _unpack_value(fields[name]) for name in fields}
    return unpacked


def _pack_value(value: object) -> object:
    """A field as JSON: numbers stay numbers, for their formats."""
    if isinstance(value, BaseException):
        value = error_text(value)
    if isinstance(value, Message):
        return pack_message(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, SupportsIndex):  # numpy's
        return int(value)
    return str(cut_field(str(value)))


def _unpack_part(value: object) -> str:
    text = _unpack_value(value)
    return text if isinstance(text, str) else str(text)


def _unpack_value(value: Any) -> Any:
    text = value.get("text") if isinstance(value, Mapping) else None
    return unpack_message(text, value) if isinstance(text, str) else value
