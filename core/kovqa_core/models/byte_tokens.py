"""Characters written byte by byte: what a tokenizer without a token for a rare syllable does.

A Hangul syllable is three bytes of UTF-8, so an answer that its budget of tokens ends may end within one. Two
ways are common: tokens `<0xEA>` beside a vocabulary of texts (byte fallback: SentencePiece, Llama, Gemma), and
a vocabulary of byte sequences (byte-level BPE: GPT-2, Qwen).
"""

from __future__ import annotations

import codecs
import functools
import re

REPLACEMENT_CHARACTER = "\ufffd"  # what decoders write where bytes do not make a character
_FALLBACK_TOKEN = re.compile("<0x([0-9A-F]{2})>")


def fallback_byte(token: str) -> int | None:
    """The byte that a token of byte fallback stands for; None for any other token."""
    match = _FALLBACK_TOKEN.fullmatch(token)
    return int(match[1], 16) if match else None


def fallback_token(byte: int) -> str:
    """The token of byte fallback for a byte."""
    return f"<0x{byte:02X}>"


def count_torn_bytes(data: bytes) -> int:
    """Bytes at the end that begin a character and do not complete it, 0 to 3."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    return len(decoder.getstate()[0])


def byte_level_bytes(token: str) -> bytes:
    """The bytes that a token of a byte-level BPE stands for; letters that are not its own, as UTF-8."""
    letters = _byte_of_letter()
    return b"".join(
        bytes([letters[letter]]) if letter in letters else letter.encode("utf-8", "replace")
        for letter in token
    )


@functools.cache
def _byte_of_letter() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 letters stand for themselves, the other bytes for U+0100 onwards."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
