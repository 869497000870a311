"""The kept lines of a split, copied from the spools into its file, and where each begins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kovqa_core.index.repeated_ids import RowMasks
from kovqa_core.index.spool import SpooledRows

_COPY_BLOCK_ROWS = 4096  # rows copied at once


def write_split(masks: RowMasks, path: Path) -> bytes:
    """Write the kept lines of a split and where each begins; returns the SHA-256 of the lines."""
    digest, start = hashlib.sha256(), 0
    with path.open("wb") as lines_file, path.with_suffix(".offsets").open("wb") as offsets:
        for shard, mask in masks:
            for block in _kept_bytes(shard, mask):
                lines_file.write(block)
                digest.update(block)
            # In the index only kept lines stand, so offsets are sums of their lengths alone.
            lengths = shard.lengths[mask]
            ends = start + np.cumsum(lengths, dtype=np.uint64)
            offsets.write((ends - lengths).astype("<u8").tobytes())  # little-endian on any machine
            start = int(ends[-1]) if len(ends) else start
            shard.path.unlink()  # so that spool and index together never need twice the space
    return digest.digest()


def _kept_bytes(shard: SpooledRows, mask: np.ndarray) -> Iterator[bytes]:
    """The bytes of the kept rows, some thousand rows at a time."""
    with shard.path.open("rb") as stream:
        for first in range(0, len(mask), _COPY_BLOCK_ROWS):
            block_mask = mask[first : first + _COPY_BLOCK_ROWS]
            lengths = shard.lengths[first : first + _COPY_BLOCK_ROWS]
            block = stream.read(int(lengths.sum()))
            # The usual case: nothing is dropped of a block, and it is copied as it is.
            if block_mask.all():
                yield block
            else:
                ends = np.cumsum(lengths)
                spans = zip((ends - lengths)[block_mask].tolist(), ends[block_mask].tolist(), strict=True)
                yield b"".join(block[start:end] for start, end in spans)
