"""Texts for people: a key that stays, the English words, named fields.

A message is written where it is needed, so that the code can be read and a text can be searched for:

    raise DataError(
        message("index.image-missing", "{place}: image {image} is not in {folder}", place=place, image=name, folder=images),
        message("index.image-missing.hint", "name the folder of the images with --images"),
    )

The key is what another language's catalogue is looked up by. `tests/messages` reads all calls: keys and
texts are literals, one key has one text, the fields are those that the text names.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from kovqa_core.messages.readable_name import readable_name


class Message(str):
    """A text for people that still knows its key and fields; a plain `str` to everyone else."""

    key: str
    fields: Mapping[str, object]


def message(key: str, english: str, /, **fields: object) -> Message:
    """The text of a message in the language of the user.

    Args:
        key: its name in the catalogues: `package.what-is-said`, in lower case; never changed once published.
        english: the English text, with fields in braces and their format (`{rows:,} rows`).
        fields: what stands in the braces.
    """
    # Readable: a field may be the name of a file that is not UTF-8, and no stream takes that.
    text = Message(readable_name(english.format(**fields)))
    text.key, text.fields = key, fields
    return text


def shell_quote(path: Path | str) -> str:
    """A path in a command that a message shows; Hangul needs no quotes, which `shlex.quote` would put around it."""
    text = str(path)
    return text if re.fullmatch(r"[\w@%+=:,./-]+", text) else shlex.quote(text)
