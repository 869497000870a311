"""New tokens -> the text of an answer, whole characters only.

The bytes of a character that an answer's end tore apart are left out, for they are not a text. A library's own
decoder does more harm: `tokenizers`' ByteFallback gives a U+FFFD for every byte of a run of byte tokens that is
not valid as a whole, and so loses the whole syllables before the torn one (docs/surprises.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from kovqa_core.models.byte_tokens import (
    REPLACEMENT_CHARACTER,
    byte_level_bytes,
    count_torn_bytes,
    fallback_byte,
    fallback_token,
)
from kovqa_core.models.vlm.hf_types import HfTokenizer

_MAX_TORN_TOKENS = 8  # more than enough tokens to hold the last four bytes, empty ones among them


def decode_token_ids(tokenizer: HfTokenizer, token_ids: Sequence[int]) -> str:
    """The text of an answer's tokens, all of them at once: alone, a token may be a third of a syllable.

    Special tokens are left out, and so are bytes at the end that begin a character and do not complete it.
    Other bytes that do not make a character are one U+FFFD, and leave their neighbours as they are.
    """
    # None: an id beyond the tokenizer, of a table that was padded to a round number of rows; it has no text.
    tokens = [token or "" for token in tokenizer.convert_ids_to_tokens(token_ids)]
    fallback_bytes = [fallback_byte(token) for token in tokens]
    if any(byte is not None for byte in fallback_bytes) and _has_byte_fallback(tokenizer):
        return tokenizer.decode(
            _with_valid_runs(tokenizer, token_ids, fallback_bytes), skip_special_tokens=True
        )
    text = tokenizer.decode(token_ids, skip_special_tokens=True)
    # A byte-level decoder leaves whole characters alone and ends the text with one U+FFFD for a torn one. A U+FFFD
    # that the model wrote is made of whole bytes, and stays.
    ending = b"".join(map(byte_level_bytes, tokens[-_MAX_TORN_TOKENS:]))
    return text.removesuffix(REPLACEMENT_CHARACTER) if count_torn_bytes(ending) else text


def _has_byte_fallback(tokenizer: HfTokenizer) -> bool:
    """Does the vocabulary hold a token for every byte? One `<0xEA>` alone is a text like any other."""
    vocab_ids = {tokenizer.convert_tokens_to_ids(fallback_token(byte)) for byte in range(256)}
    return len(vocab_ids) == 256


def _with_valid_runs(
    tokenizer: HfTokenizer, token_ids: Sequence[int], fallback_bytes: Sequence[int | None]
) -> list[int]:
    """The same tokens with every run of byte tokens made valid UTF-8, so that it is decoded as what it is."""
    valid_ids: list[int] = []
    pairs = list(zip(token_ids, fallback_bytes, strict=True))
    done = 0
    for is_text, run in itertools.groupby(pairs, lambda pair: pair[1] is None):
        ids = [token_id for token_id, _ in run]
        done += len(ids)
        if not is_text:
            data = bytes(byte for byte in fallback_bytes[done - len(ids) : done] if byte is not None)
            if done == len(pairs):
                data = data[: len(data) - count_torn_bytes(data)]
            # Bytes that do not make a character become the three bytes of U+FFFD: those, the decoder takes.
            valid = data.decode("utf-8", "replace").encode()
            ids = [tokenizer.convert_tokens_to_ids(fallback_token(byte)) for byte in valid]
        valid_ids += ids
    return valid_ids
