"""What a tokenizer makes of the texts of an index: how much of them it does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kovqa_core.data.example import Example
from kovqa_core.files import to_nfc
from kovqa_core.messages import Message, message

_SAMPLE = 300  # examples; well below a second for every tokenizer
_UNKNOWN_LIMIT = 0.02  # of all tokens; a tokenizer of the right language is far below
_BYTES_LIMIT = 0.3


@dataclass(frozen=True)
class TokenCount:
    """Tokens of some texts.

    Attributes:
        texts, tokens: how many of each.
        unknown: tokens that say only that something is not known.
        bytes: tokens that stand for a single byte; of a Hangul syllable it takes three.
        texts_with_unknown: texts that have an unknown token.
        max_length: tokens that a text may have; None: it is not cut.
        cut: texts that have more.
    """

    texts: int = 0
    tokens: int = 0
    unknown: int = 0
    bytes: int = 0
    texts_with_unknown: int = 0
    max_length: int | None = None
    cut: int = 0


def count_tokens(
    texts: Iterable[str],
    encode: Callable[[str], Sequence[int]],
    *,
    unknown_id: int | None,
    is_byte: Callable[[int], bool],
    max_length: int | None = None,
    specials: int = 0,
) -> TokenCount:
    """Count the tokens of texts.

    Args:
        texts: in any form; they are composed (NFC) as the processors do.
        encode: ids of a text, with or without those that begin and end it.
        unknown_id: None: nothing is unknown to this tokenizer.
        is_byte: does an id stand for one byte?
        max_length: tokens that a text may have; None: it is not cut.
        specials: of these, how many `encode` does not return.
    """
    rows = [encode(to_nfc(text)) for text in texts]
    byte_ids = {id for id in set().union(*rows) if is_byte(id)}
    unknown = [sum(id == unknown_id for id in row) for row in rows]
    return TokenCount(
        texts=len(rows),
        tokens=sum(map(len, rows)),
        unknown=sum(unknown),
        bytes=sum(id in byte_ids for row in rows for id in row),
        texts_with_unknown=sum(map(bool, unknown)),
        max_length=max_length,
        cut=0 if max_length is None else sum(len(row) + specials > max_length for row in rows),
    )


def sample_examples(examples: Sequence[Example]) -> list[Example]:
    """Some examples of a split, spread over all of it."""
    count = min(_SAMPLE, len(examples))
    return [examples[number * len(examples) // count] for number in range(count)]


def describe_unknown_text(count: TokenCount) -> Message | None:
    """A warning where a tokenizer hardly knows the language of its texts; None: it does."""
    tokens = max(1, count.tokens)
    if count.unknown > _UNKNOWN_LIMIT * tokens:
        return message(
            "models.unknown-text",
            "warning: the tokenizer does not know {share:.0%} of the tokens of the training texts ({rows} of {texts} "
            "sampled texts have unknown ones, which all look alike to the model); name one that knows their "
            "language: --tokenizer FILE, made by kovqa tokenizer train",
            share=count.unknown / tokens,
            rows=count.texts_with_unknown,
            texts=count.texts,
        )
    if count.bytes > _BYTES_LIMIT * tokens:
        return message(
            "models.text-in-bytes",
            "warning: the tokenizer spells the training texts in bytes: {share:.0%} of the tokens are single bytes "
            "({per_text:.0f} tokens a text, {texts} sampled), so that the model learns slowly and texts are cut "
            "early; a tokenizer that knows their language has about a third of the tokens",
            share=count.bytes / tokens,
            per_text=count.tokens / count.texts,
            texts=count.texts,
        )
    return None


def describe_cut_texts(count: TokenCount, texts: str) -> Message | None:
    """That texts are longer than the model reads, so that their ends are cut off; None: none is.

    Args:
        count: of the texts.
        texts: what they are, in words: "300 sampled texts".
    """
    if not count.cut:
        return None
    return message(
        "models.cut-texts",
        "warning: {cut:,} of {texts} are longer than model.max_text={max_length} tokens and are cut",
        cut=count.cut,
        texts=texts,
        max_length=count.max_length,
    )
