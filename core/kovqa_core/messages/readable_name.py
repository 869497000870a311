"""File names that are not UTF-8, as text that can be shown and written."""

from __future__ import annotations

import re

# What a name of ASCII and of bytes that are not UTF-8 looks like in Python (PEP 383). A slash is no part of it.
_UNDECODED_NAME = re.compile("[!-.0-~]*[\udc80-\udcff][!-.0-~\udc80-\udcff]*")


def readable_name(text: str) -> str:
    r"""A text that every file can hold: bytes of a file name that are not UTF-8 are read as CP949, else as `\xb0`.

    Archives of Korean Windows unpack into names in CP949. Any other text comes back as it is.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        # JSON may hold half a surrogate pair besides, which stands for no byte.
        decoded = _UNDECODED_NAME.sub(lambda name: _decode_name(name[0]), text)
        return decoded.encode("utf-8", "backslashreplace").decode()
    return text


def _decode_name(name: str) -> str:
    data = name.encode("utf-8", "surrogateescape")
    try:
        return data.decode("cp949")
    except UnicodeDecodeError:
        return data.decode("utf-8", "backslashreplace")
