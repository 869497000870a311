"""Text rows for a new tokenizer, made of the rows of an old one.

The original lets id k keep row k, so that under another tokenizer every Korean token begins as some
unrelated English one. Here a token takes along what the old table knows of it: its own row, or the mean of
the rows of the tokens it is spelled with. Source: docs/sources/beit3.md, B23.

Shapes: V_old and V_new are the vocabularies, D the width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kovqa_core.messages import Message, message

_WORD_BOUNDARY = "▁"  # how SentencePiece writes the blank before a word
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
# No vocabulary has this character, and no token reaches across it: what follows is tokenized as inside a word.
_UNSEEN_CHARACTER = "\ue000"


@dataclass(frozen=True)
class VocabTransfer:
    """Where each row of a new table comes from.

    Attributes:
        old_size, new_size: ids of the old and of the new tokenizer.
        copied: new row -> the old row of the same token.
        averaged: new row -> old rows whose mean it is.
        randomly_initialised: new rows of which nothing is known.
    """

    old_size: int
    new_size: int
    copied: dict[int, int]
    averaged: dict[int, tuple[int, ...]]
    randomly_initialised: tuple[int, ...]

    def describe(self) -> Message:
        """How the rows came about, in words."""
        return message(
            "beit3.vocab-transfer",
            "{copied:,} tokens copied, {averaged:,} averaged, {random:,} randomly initialised",
            copied=len(self.copied),
            averaged=len(self.averaged),
            random=len(self.randomly_initialised),
        )


def plan_vocab_transfer(
    old: Sequence[str], new: Sequence[str], encode: Callable[[str], Iterable[int]]
) -> VocabTransfer:
    """How a new vocabulary takes the rows of an old one along.

    Special ids have the same names in both, so they are copied like any token. Not averaged are special ids,
    the blank alone (it stands before every word) and bytes (all Hangul begins with the same few): they would
    pull unrelated tokens together. A token of which nothing is left is randomly initialised.

    Args:
        old, new: the token of every id (`XlmrTokenizer.vocab`).
        encode: ids of a text by the old tokenizer.
    """
    old_rows = {token: row for row, token in enumerate(old)}
    ignored = {
        row for row, token in enumerate(old) if token == _WORD_BOUNDARY or _BYTE_TOKEN.fullmatch(token)
    }
    ignored |= {*range(4), len(old) - 1}  # `<s>`, `<pad>`, `</s>`, `<unk>`, `<mask>`
    copied: dict[int, int] = {}
    averaged: dict[int, tuple[int, ...]] = {}
    random: list[int] = []
    for row, token in enumerate(new):
        if token in old_rows:
            copied[row] = old_rows[token]
        elif spelling := tuple(id for id in encode(_token_text(token)) if id not in ignored):
            averaged[row] = spelling
        else:
            random.append(row)
    return VocabTransfer(len(old), len(new), copied, averaged, tuple(random))


def _token_text(token: str) -> str:
    """The text a token stands for; empty for a byte.

    A token from inside a word gets a character before it that splits off: else the old tokenizer would put
    a blank in front and spell it as the start of a word.
    """
    if _BYTE_TOKEN.fullmatch(token):
        return ""
    text = token.replace(_WORD_BOUNDARY, " ")
    return text if token.startswith(_WORD_BOUNDARY) else _UNSEEN_CHARACTER + text


def transfer_vocab_rows(table: Tensor, plan: VocabTransfer, generator: torch.Generator) -> Tensor:
    """The new table [V_new, ...] of an old one [V_old or more, ...]: text rows, or rows of a word head.

    Random rows are normal, with the old table's mean and standard deviation in every dimension, so that they
    are as large as their neighbours. Rows beyond the old tokenizer's ids were never trained and do not count.

    Args:
        table: [rows, D], or [rows] for the head's bias.
        plan: where each new row comes from.
        generator: of the random rows.
    """
    known = table[: plan.old_size].float()
    rows = known.new_empty(plan.new_size, *table.shape[1:])
    rows[list(plan.copied)] = known[list(plan.copied.values())]
    for row, spelling in plan.averaged.items():
        rows[row] = known[list(spelling)].mean(0)
    deviation, mean = torch.std_mean(known, 0)
    noise = torch.randn((len(plan.randomly_initialised), *table.shape[1:]), generator=generator)
    rows[list(plan.randomly_initialised)] = mean + deviation * noise
    return rows
