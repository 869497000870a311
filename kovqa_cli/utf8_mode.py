"""A locale that is not UTF-8: kovqa starts once more in Python's UTF-8 mode (PEP 540).

File names, texts and what libraries do with them are then UTF-8 everywhere, in the workers too. Only what is
typed and printed stays in the locale's encoding: an EUC-KR terminal reads and shows EUC-KR.
"""

from __future__ import annotations

import codecs
import locale
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_TERMINAL_OPTION = (
    "kovqa_terminal"  # of -X: the encoding of the streams; unlike a variable, no child inherits it
)
_FIRST_WIDE_LETTER = 0x250  # below it are Latin letters


def ensure_utf8_mode() -> None:
    """Run this command anew in UTF-8 mode if the locale is not UTF-8; then set the streams to the locale's encoding."""
    if not sys.flags.utf8_mode and _codec(sys.getfilesystemencoding()) != "utf-8" and sys.executable:
        encoding = _codec(locale.getencoding())
        options = ["-X", "utf8"]
        # Of an ASCII locale nobody knows what the terminal shows; today that is UTF-8.
        if encoding != "ascii" and "PYTHONIOENCODING" not in os.environ:
            options += ["-X", f"{_TERMINAL_OPTION}={encoding}"]
        os.environ["PYTHONUTF8"] = "1"  # for what this command starts
        words = [convert_argument(word, encoding) for word in _raw_arguments()[1:]]
        os.execv(sys.executable, [os.fsencode(sys.executable), *map(os.fsencode, options), *words])
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that knows no Hangul must not stop anything
            stream.reconfigure(encoding=sys._xoptions.get(_TERMINAL_OPTION), errors="replace")


def convert_argument(word: bytes, encoding: str) -> bytes:
    """A word of the command line in UTF-8; a path that is there by its very bytes stays.

    Args:
        word: as it was typed: in the locale's encoding, or in UTF-8 by a script or another terminal.
        encoding: the locale's.
    """
    if encoding == "ascii" or word.isascii():
        return word
    # Windows code page 949 is EUC-KR and all its missing syllables.
    typed = _decode(word, "cp949" if encoding == "euc_kr" else encoding)
    as_utf8 = _decode(word, "utf-8")
    # A few syllables of EUC-KR are also UTF-8, of Latin letters: 타 is Ÿ.
    if typed is None or (
        as_utf8 is not None and any(ord(letter) >= _FIRST_WIDE_LETTER for letter in as_utf8)
    ):
        return word
    value = word.partition(b"=")[2]
    if any(_exists(path) for path in (word, value) if path):
        return word
    return typed.encode("utf-8")


def _raw_arguments() -> Sequence[bytes]:
    """Python's command line as bytes: its own decoding cannot always be undone."""
    try:
        return Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:  # not on macOS, whose file names are UTF-8 anyway
        return [os.fsencode(word) for word in sys.orig_argv]


def _exists(path: bytes) -> bool:
    return os.path.lexists(path)  # Path takes no bytes


def _decode(word: bytes, encoding: str) -> str | None:
    try:
        return word.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _codec(name: str) -> str:
    """Python's name of an encoding; the name itself where Python does not know it."""
    try:
        return codecs.lookup(name).name
    except LookupError:
        return name
