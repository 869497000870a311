"""Another vocabulary for weights that learned one: which old rows a new row is made of.

A table with a row per token (text embedding, the head that names words) is written anew for the
new tokenizer. A piece both know keeps its row; any other is spelled by the old tokenizer and takes
the mean of those rows; what the old one cannot spell is drawn like the old rows: normal, with
their mean and spread in each dimension. KoBEiT3 kept row k for id k instead, so that every Korean
piece began as an unrelated English one (spec beit3, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kovqa_core.errors import ModelError
from kovqa_core.models.beit3.text import BOS, EOS, PAD, UNK, Tokenizer

# Tables with a row per token, under the original's names.
_TABLES = ("beit3.text_embed.weight", "mlm_head.weight", "mlm_head.bias")
Sources = list[list[int]]  # new id -> the old ids its row is the mean of; none: drawn


@dataclass(frozen=True)
class Carried:
    """How many rows were made in which way."""

    copied: int
    averaged: int
    drawn: int

    def __str__(self) -> str:
        return f"text rows: {self.copied:,} copied, {self.averaged:,} from parts, {self.drawn:,} drawn"


def carry_all(original: dict[str, Tensor], new: Tokenizer, old: Tokenizer, rows: int, seed: int) -> str:
    """Write the tables of a state dict anew for another tokenizer, in place; a note on what was done.

    Args:
        original: weights under the original's names.
        new, old: the tokenizer to come, and that of the weights.
        rows: of the new tables, at least as many as the new tokenizer has ids.
        seed: of the rows that are drawn.

    Raises:
        ModelError: a table with fewer rows than its tokenizer has ids.
    """
    present = [name for name in _TABLES if name in original]
    for name in present:
        if len(original[name]) < old.size:
            raise ModelError(
                f"{name} has {len(original[name])} rows, the tokenizer of the weights has {old.size} ids",
                "name the right one: --set model.weights_tokenizer=FILE",
            )
    if new.sha256 == old.sha256:
        for name in present:
            original[name] = original[name][:rows]
        return "text rows as they are"
    wanted = [*sources(new, old), *([] for _ in range(rows - new.size))]
    for name in present:
        original[name] = carry(original[name], wanted, old, seed)
    return str(counted(wanted))


def sources(new: Tokenizer, old: Tokenizer) -> Sources:
    """The old ids that each new id's row is made of."""
    known = {old.piece(id): id for id in range(UNK + 1, old.mask)}
    found: Sources = [[BOS], [PAD], [EOS], [UNK]]
    found += [_source(new.piece(id), known, old) for id in range(UNK + 1, new.mask)]
    return [*found, [old.mask]]


def _source(piece: str, known: dict[str, int], old: Tokenizer) -> list[int]:
    if piece in known:
        return [known[piece]]
    if old.is_byte(piece) or not piece.strip("▁"):
        return []
    ids = old.encode(piece.replace("▁", " "))
    if ids and not piece.startswith("▁"):  # a text begins a word for SentencePiece; this piece does not
        first = old.piece(ids[0])
        ids[0] = known.get(first.removeprefix("▁"), ids[0])
    return [id for id in ids if id > UNK and old.piece(id) != "▁" and not old.is_byte(old.piece(id))]


def carry(table: Tensor, wanted: Sequence[Sequence[int]], old: Tokenizer, seed: int) -> Tensor:
    """A table [V, …] for the new ids, [len(wanted), …].

    Args:
        table: a row per old id; rows behind the old tokenizer's ids were never used.
        wanted: what `sources` gave.
        old: the tokenizer of the table.
        seed: of the rows that are drawn.
    """
    learned = table[UNK + 1 : old.mask]
    noise = torch.randn(len(wanted), *table.shape[1:], generator=torch.Generator().manual_seed(seed))
    rows = learned.mean(0) + learned.std(0) * noise
    for id, ids in enumerate(wanted):
        if ids:
            rows[id] = table[ids[0]] if len(ids) == 1 else table[list(ids)].mean(0)
    return rows


def counted(wanted: Sequence[Sequence[int]]) -> Carried:
    """How many rows are made in which way."""
    lengths = [len(ids) for ids in wanted]
    return Carried(lengths.count(1), sum(n > 1 for n in lengths), lengths.count(0))
