"""Ids that repeat in a split: rows that are there twice are left out, the others' ids are qualified."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from kovqa_core.data.example import Example
from kovqa_core.data.row_ids import RepeatedIds, TableRow, qualified_id, resolve_repeated_ids, row_identity
from kovqa_core.index.left_out import ROW_TWICE, ROW_TWICE_OTHER_ANSWER, LeftOutRows
from kovqa_core.index.spool import SpooledRows

RowMasks = list[tuple[SpooledRows, np.ndarray]]  # a split's rows by shard, each with a mask of those kept


@dataclass
class QualifiedIds:
    """Ids that were qualified by their image.

    Attributes:
        count: how many rows have one.
        first: the first of them; "" where there is none.
    """

    count: int = 0
    first: str = ""


def keep_distinct_rows(
    shards: Sequence[SpooledRows], left_out: LeftOutRows, qualified: QualifiedIds
) -> RowMasks:
    """The rows of a split, each with an id of its own, by the rule of `data/row_ids.py`.

    Ids are compared by their CRC-32 first; only the rows of a checksum that occurs twice are read again, and
    take 32 bytes each while they are compared. Of n rows with different ids, about n² / 2^33 pairs share a
    checksum by chance: some thousand of 7.5 million rows.

    Args:
        shards: the split's rows; the lines of those whose ids are qualified are written again.
        left_out: collects the rows that are there twice.
        qualified: collects the ids that were qualified.

    Returns:
        which rows are kept.
    """
    if not shards:
        return []
    checksums, times = np.unique(np.concatenate([shard.id_checksums for shard in shards]), return_counts=True)
    suspects = [np.isin(shard.id_checksums, checksums[times > 1]) for shard in shards]
    # Strictly in order of shards and rows, so that "the first row" is the same in every run.
    hashes = array("Q")
    for shard, mask in zip(shards, suspects, strict=True):
        for example in shard.examples(mask):
            hashes.extend(_example_hashes(example))
    table = np.frombuffer(hashes, np.uint64).reshape(-1, 4)
    resolved = resolve_repeated_ids(table[:, :3])
    is_changed = table[:, 3] != table[resolved.first, 3]
    masks, start = [], 0
    for shard, mask in zip(shards, suspects, strict=True):
        part = slice(start, start + int(mask.sum()))
        _leave_out_duplicates(shard, mask, resolved.is_duplicate[part], is_changed[part], left_out)
        _qualify_ids(shard, mask, resolved, part, qualified)
        kept = np.ones(len(mask), bool)
        kept[mask] = ~resolved.is_duplicate[part]
        masks.append((shard, kept))
        start = part.stop
    return masks


def _example_hashes(example: Example) -> tuple[int, int, int, int]:
    """What a row is compared by, and a hash of what is known about it."""
    identity = row_identity(TableRow.of_example(example))
    known = repr((dict(example.answers), list(example.captions))).encode()
    digest = int.from_bytes(blake2b(known, digest_size=8).digest(), "little")
    return identity.id, identity.image, identity.question, digest


def _leave_out_duplicates(
    shard: SpooledRows,
    suspects: np.ndarray,
    is_duplicate: np.ndarray,
    is_changed: np.ndarray,
    left_out: LeftOutRows,
) -> None:
    """Count and name the rows that are there twice.

    Args:
        suspects: the shard's rows that were compared [rows].
        is_duplicate, is_changed: of those: an earlier row is the same; its answers are others [suspects].
    """
    for reason, chosen in (
        (ROW_TWICE, is_duplicate & ~is_changed),
        (ROW_TWICE_OTHER_ANSWER, is_duplicate & is_changed),
    ):
        left_out.counts[reason] += int(chosen.sum())
        named = np.zeros(len(suspects), bool)
        # Only the first are read again for the list; the count comes from the mask.
        named[np.flatnonzero(suspects)[chosen][: LeftOutRows.MAX_LISTED]] = True
        for example in shard.examples(named):
            left_out.list_row(reason, f"id {example.id}: {example.question}")


def _qualify_ids(
    shard: SpooledRows, suspects: np.ndarray, resolved: RepeatedIds, part: slice, qualified: QualifiedIds
) -> None:
    """Give the shard's rows the ids that tell them apart.

    Args:
        suspects: the shard's rows that were compared [rows].
        resolved: what becomes of the rows of all shards that were compared.
        part: this shard's place among them.
        qualified: is added to.
    """
    is_qualified, number = np.zeros(len(suspects), bool), np.zeros(len(suspects), np.uint32)
    is_qualified[suspects], number[suspects] = resolved.is_qualified[part], resolved.number[part]
    if not is_qualified.any():
        return
    qualified.count += int(is_qualified.sum())
    if not qualified.first:
        row = int(np.argmax(is_qualified))
        example = next(shard.examples(np.arange(len(suspects)) == row))
        qualified.first = qualified_id(example.id, example.image, int(number[row]))
    shard.qualify_ids(is_qualified, number)
