"""Index -> batches: which examples, in which order, on which process, from which step on.

The order, the crops and every other draw are functions of (seed, epoch, example). Nothing depends
on the number of processes, of loader workers, or on where a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.models.batches import ExampleKey
from kovqa_core.settings.run import Run


@lru_cache(maxsize=2)
def epoch_order(rows: int, epoch: int, seed: int) -> np.ndarray:
    """The order of an epoch: a permutation of the example numbers."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def micro_batch_keys(run: Run, rows: int, rank: RankInfo, start: int, end: int) -> Iterator[list[ExampleKey]]:
    """Keys of one process's micro-batches, from optimizer step `start` to before `end`.

    The global batch of a step is cut into world × accumulate equal pieces; a process takes its
    neighbours' next pieces in turn.
    """
    batch, per_epoch = run.recipe.optim.global_batch, rows // run.recipe.optim.global_batch
    for step in range(start, end):
        epoch, within = divmod(step, per_epoch)
        numbers = epoch_order(rows, epoch, run.recipe.seed)[within * batch : (within + 1) * batch]
        for turn in range(run.accumulate):
            piece = (turn * rank.world + rank.rank) * run.micro_batch
            yield [(epoch, int(number)) for number in numbers[piece : piece + run.micro_batch]]
