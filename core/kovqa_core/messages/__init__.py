"""Texts for people: a key that stays, the English words, named fields.

A message is written where it is needed, so that the code can be read and a text can be searched for:

    raise DataError(
        message("index.image-missing", "{place}: image {image} is not in {folder}", place=place, image=name, folder=images),
        message("index.image-missing.hint", "name the folder of the images with --images"),
    )

The key is what another language's catalogue is looked up by (`languages.py`), where a person is shown the text: as a
`str` it is English, in every file, log and JSON document. Whatever is glued (`f"{text} …"`, `", ".join(texts)`) stays
English: `join_messages`, or a message with that field. `tests/messages` reads all calls: keys and texts are literals,
one key has one text, the fields are those that the text names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from kovqa_core.messages.one_line import cut_value, escape_one_line


class Message(str):
    """A text for people that still knows its key and fields; a plain `str`, in English, to everyone else."""

    key: str
    fields: Mapping[str, object]


class JoinedMessage(Message):
    """Several texts as one, each of which keeps its key."""

    separator: str
    parts: tuple[str, ...]


class WordedMessage(Message):
    """A text of a data file, which has its own words in other languages."""

    words: Mapping[str, str]


def message(key: str, english: str, /, **fields: object) -> Message:
    """The text of a message: one line, whatever its fields hold.

    Args:
        key: its name in the catalogues: `package.what-is-said`, in lower case; never changed once published.
        english: the English text, with fields in braces and their format (`{rows:,} rows`).
        fields: what stands in the braces.
    """
    # A field may be a value of a foreign file or server, or the name of a file that is not UTF-8.
    text = Message(escape_one_line(english.format(**{name: cut_field(fields[name]) for name in fields})))
    text.key, text.fields = key, fields
    return text


def join_messages(separator: str, parts: Iterable[str]) -> JoinedMessage:
    """Texts with something between them, as `str.join`: messages among them keep their keys."""
    texts = tuple(parts)
    joined = JoinedMessage(separator.join(texts))
    joined.key, joined.fields, joined.separator, joined.parts = "", {}, separator, texts
    return joined


def error_text(error: BaseException) -> str:
    """What an exception says: the message that it was raised with, if it was, which keeps its key."""
    said = error.args[0] if error.args else ""
    return said if isinstance(said, Message) else str(error)


def worded_message(english: str, **words: str) -> WordedMessage:
    """A text of a data file.

    Args:
        english: as programs get it.
        words: by language; empty ones count as none.
    """
    text = WordedMessage(english)
    text.key, text.fields, text.words = "", {}, words
    return text


def cut_field(value: object) -> object:
    """A field of a message, cut if it is long."""
    if isinstance(value, Message):  # made of fields that were cut
        return value
    return cut_value(str(value)) if isinstance(value, (str, BaseException)) else value


def shell_quote(path: Path | str) -> str:
    """A path in a command that a message shows; Hangul needs no quotes, which `shlex.quote` would put around it."""
    text = str(path)
    if re.fullmatch(r"[\w@%+=:,./-]+", text):
        return text
    if escape_one_line(text) == text:
        import shlex  # a start does without

        return shlex.quote(text)
    # Bash, zsh and POSIX.1-2024 read escapes in $'…': the command stays one line, and names the same file.
    return "$'" + "".join(map(_dollar_quote, text)) + "'"


def _dollar_quote(letter: str) -> str:
    if letter in "\\'" or escape_one_line(letter) != letter:
        # A byte of a name that is not UTF-8; or half a character from JSON, which no name has: it only must not fail.
        errors = "surrogateescape" if "\udc80" <= letter <= "\udcff" else "surrogatepass"
        return "".join(f"\\{byte:03o}" for byte in letter.encode("utf-8", errors))
    return letter
