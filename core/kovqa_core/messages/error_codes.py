"""The code of an error, by which it is found in docs/errors.md and on the web; `tools/error_codes.py` numbers them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from kovqa_core.messages import JoinedMessage, Message


def find_error_code(text: str) -> str:
    """`KOVQA-2004`; "" for a text that has none.

    A message around another (`problem`: "…; did you mean …?") has that one's.
    """
    if isinstance(text, JoinedMessage):
        return next((code for part in text.parts if (code := find_error_code(part))), "")
    if not isinstance(text, Message):
        return ""
    return _read_codes().get(text.key) or find_error_code(_text_field(text.fields, "problem"))


def _text_field(fields: Mapping[str, object], name: str) -> str:
    """A field that is a text; "" for any other."""
    value = fields.get(name, "")
    return value if isinstance(value, str) else ""


@functools.cache
def _read_codes() -> Mapping[str, str]:
    lines = (Path(__file__).parent / "error_codes.tsv").read_text("utf-8").splitlines()
    return {key: code for code, _, key in (line.partition("\t") for line in lines)}
