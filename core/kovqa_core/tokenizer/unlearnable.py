"""Lines the trainer would pass over without a word, or learn a token from that no text has: counted by reason.

SentencePiece's trainer writes that to its log only, which has a line for every token as well (docs/surprises.md).
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.data.left_out import are_too_many
from kovqa_core.errors import DataError
from kovqa_core.messages import Message, join_messages, message

if TYPE_CHECKING:
    from sentencepiece import SentencePieceNormalizer

NORMALIZATION_RULE = "nmt_nfkc"  # SentencePiece's name of it
_UNKNOWN_MARK = "\u2585"  # kUNKStr of the trainer: how it writes an unknown character down
_SURROGATE = re.compile("[\ud800-\udfff]")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")

# Keys of a card and of `--json`: their spelling stays.
HOLDS_UNKNOWN_MARK = "holds U+2585"
HOLDS_NUL = "holds a NUL"
NOT_UNICODE = "half a surrogate pair"
EMPTY_WHEN_NORMALISED = "empty when normalised"


def unlearnable_reason(line: str) -> str:
    """Why nothing can be learned from a line; empty where something can.

    Args:
        line: not empty, without white space around it.
    """
    if not line.isascii():
        if _UNKNOWN_MARK in line:
            return HOLDS_UNKNOWN_MARK
        # JSON can spell half a pair (`"\\ud83d"`), which no encoding can store.
        if _SURROGATE.search(line):
            return NOT_UNICODE
    if "\0" in line:
        return HOLDS_NUL
    # Only signs may vanish, so nearly every line is decided without normalising it.
    if not _LETTER_OR_DIGIT.search(line) and not _normalizer().Normalize(line).strip():
        return EMPTY_WHEN_NORMALISED
    return ""


def _reason_text(reason: str) -> str:
    return {
        HOLDS_UNKNOWN_MARK: message("tokenizer.holds-unknown-mark", "holds U+2585"),
        HOLDS_NUL: message("tokenizer.holds-nul", "holds a NUL"),
        NOT_UNICODE: message("tokenizer.half-pair", "half a surrogate pair"),
        EMPTY_WHEN_NORMALISED: message("tokenizer.empty-when-normalised", "empty when normalised"),
    }.get(reason, reason)


@functools.cache
def _normalizer() -> SentencePieceNormalizer:
    import sentencepiece

    return sentencepiece.SentencePieceNormalizer(rule_name=NORMALIZATION_RULE)


def left_out_lines_text(left_out: Counter[str], kept: int) -> Message:
    """So many lines of so many left out, and why, in words."""
    total = left_out.total()
    reasons = join_messages(
        ", ",
        [
            message("tokenizer.reason", "{reason} {count:,}", reason=_reason_text(reason), count=count)
            for reason, count in left_out.most_common()
        ],
    )
    return message(
        "tokenizer.lines-left-out", "{faults:,} of {lines:,} lines ({fraction:.1%}) are left out: {reasons}",
        faults=total, lines=total + kept, fraction=total / max(1, total + kept), reasons=reasons,
    )  # fmt: skip


def require_enough_lines(left_out: Counter[str], kept: int, inputs: Sequence[Path]) -> None:
    """See that no more lines are left out than rows of a data set may be.

    Args:
        left_out: lines by reason.
        kept: the others.
        inputs: the files, for the error.

    Raises:
        DataError: more than 10 % are.
    """
    if are_too_many(left_out.total(), left_out.total() + kept):
        raise DataError(
            message(
                "tokenizer.lines-left-out-of", "{files}: {problem}",
                files=", ".join(map(str, inputs)), problem=left_out_lines_text(left_out, kept),
            ),
            message("tokenizer.lines-left-out.hint", "mend them, or go on without them: --allow-left-out"),
        )  # fmt: skip
