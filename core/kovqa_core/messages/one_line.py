"""Text of others on one line of a terminal: what steers a terminal, or turns text around, is shown as its escape."""

from __future__ import annotations

import re

from kovqa_core.messages.readable_name import readable_name

MAX_VALUE_LENGTH = 1_000  # characters of one value in a line for people

# Control characters (C0, DEL, C1), line and paragraph separators, what changes the direction of text (bidi marks,
# embeddings, overrides and isolates), and format characters without any width, which make two names look alike.
# Zero-width joiners stay, emoji are made with them; so do Hangul fillers and conjoining jamo, which are letters.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


def escape_one_line(text: str) -> str:
    r"""A text with every line end and other control character as its escape (`\n`, `\x1b`, `\u202e`): one line."""
    if _UNPRINTABLE.search(text) is None and text.isascii():
        return text
    return _UNPRINTABLE.sub(_escape_letter, readable_name(text))


def escape_json(text: str) -> str:
    r"""A JSON document whose strings hold none of these characters raw: `\u009b` is the same to every reader."""
    return _UNPRINTABLE.sub(lambda letter: f"\\u{ord(letter[0]):04x}", text)


def cut_value(text: str, longest: int = MAX_VALUE_LENGTH) -> str:
    """A value as part of a line: cut after `longest` characters, with its whole length."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


def _escape_letter(letter: re.Match[str]) -> str:
    return letter[0].encode("unicode_escape").decode()
