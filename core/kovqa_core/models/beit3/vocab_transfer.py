"""A text table for a new tokenizer, made of the rows of an old one.

The original lets id k keep row k, so that under another tokenizer every Korean piece begins as some
unrelated English one. Here a piece takes along what the old table knows of it: its own row, or the
mean of the rows it is spelled with. Source: docs/sources/beit3.md, B23.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_WORD_BOUNDARY = "▁"  # how SentencePiece writes a blank, before every word
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
# No vocabulary has this character, and no piece reaches across it: what follows is spelled as inside a word.
_UNSEEN_CHARACTER = "\ue000"


@dataclass(frozen=True)
class VocabTransfer:
    """Where each row of a new table comes from.

    Attributes:
        old, new: ids of the old and of the new tokenizer.
        copied: new row -> the old row of the same piece.
        averaged: new row -> old rows whose mean it is.
        drawn: new rows nothing is known of.
    """

    old: int
    new: int
    copied: dict[int, int]
    averaged: dict[int, tuple[int, ...]]
    drawn: tuple[int, ...]

    def __str__(self) -> str:
        return f"{len(self.copied):,} pieces copied, {len(self.averaged):,} from parts, {len(self.drawn):,} drawn"


def plan_vocab_transfer(
    old: Sequence[str], new: Sequence[str], encode: Callable[[str], Iterable[int]]
) -> VocabTransfer:
    """How a new vocabulary takes the rows of an old one along.

    Special ids have the same names in both, so they are copied like any piece. Not counted as parts are
    special ids, the blank alone (it stands before every word) and bytes (all Hangul begins with the
    same few): they would draw unrelated pieces together. A piece of which nothing counts is drawn.

    Args:
        old, new: the piece of every id (`Tokenizer.vocabulary`).
        encode: ids of a text by the old tokenizer.
    """
    rows = {piece: row for row, piece in enumerate(old)}
    silent = {row for row, piece in enumerate(old) if piece == _WORD_BOUNDARY or _BYTE_TOKEN.fullmatch(piece)}
    silent |= {*range(4), len(old) - 1}
    copied: dict[int, int] = {}
    averaged: dict[int, tuple[int, ...]] = {}
    drawn: list[int] = []
    for row, piece in enumerate(new):
        if piece in rows:
            copied[row] = rows[piece]
        elif parts := tuple(part for part in encode(_token_text(piece)) if part not in silent):
            averaged[row] = parts
        else:
            drawn.append(row)
    return VocabTransfer(len(old), len(new), copied, averaged, tuple(drawn))


def _token_text(piece: str) -> str:
    """The text a piece stands for; nothing for a byte."""
    if _BYTE_TOKEN.fullmatch(piece):
        return ""
    return (
        piece.replace(_WORD_BOUNDARY, " ")
        if piece.startswith(_WORD_BOUNDARY)
        else _UNSEEN_CHARACTER + piece.replace(_WORD_BOUNDARY, " ")
    )


def transfer_vocab_rows(table: Tensor, plan: VocabTransfer, generator: torch.Generator) -> Tensor:
    """The new table, [new, ...], of an old one, [old or more, ...]: text rows, or rows of a word head.

    Drawn rows are normal, with the old table's mean and standard deviation in every dimension. Rows
    beyond the old tokenizer's ids were never trained and count for nothing.
    """
    known = table[: plan.old].float()
    rows = known.new_empty(plan.new, *table.shape[1:])
    rows[list(plan.copied)] = known[list(plan.copied.values())]
    for row, parts in plan.averaged.items():
        rows[row] = known[list(parts)].mean(0)
    deviation, mean = torch.std_mean(known, 0)
    noise = torch.randn((len(plan.drawn), *table.shape[1:]), generator=generator)
    rows[list(plan.drawn)] = mean + deviation * noise
    return rows
