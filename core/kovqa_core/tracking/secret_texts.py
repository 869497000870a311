"""Texts of libraries without the keys that they were given."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SECRET_NAME = re.compile(r"KEY|TOKEN|PASSW|SECRET|CREDENTIAL", re.IGNORECASE)
_LEAST_LETTERS = 6  # a shorter value would be found in any text
_IN_ADDRESS = re.compile(
    r"(?<=://)[^/@\s]+(?=@)|(?i:(?<=token=)|(?<=key=)|(?<=password=)|(?<=secret=))[^&\s'\"]+"
)


def without_secrets(text: str, environ: Mapping[str, str]) -> str:
    """A text in which *** stands for values of variables called key, token or password, and for those in addresses."""
    values = {value for name, value in environ.items() if _SECRET_NAME.search(name)}
    # The longest first: of a value that begins with another one the rest would stay.
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _LEAST_LETTERS:
            text = text.replace(value, "***")
    return _IN_ADDRESS.sub("***", text)
