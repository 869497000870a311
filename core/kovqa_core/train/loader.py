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
    """The order of an epoch: a permutation of the example numbers, shape (rows,).

    A new generator for each epoch: a resumed run makes its epoch's order without those before it.
    """
    return np.random.default_rng([seed, epoch]).permutation(rows)


def micro_batch_keys(run: Run, rows: int, rank: RankInfo, start: int, end: int) -> Iterator[list[ExampleKey]]:
    """Keys of one process's micro-batches, from optimizer step `start` to before `end`.

    The global batch of a step is split into accumulate × world_size slices of `micro_batch` examples, dealt to
    the processes in turn; so the same examples make up a step on any number of processes.
    """
    batch, per_epoch = run.recipe.optim.global_batch, rows // run.recipe.optim.global_batch
    for step in range(start, end):
        epoch, step_of_epoch = divmod(step, per_epoch)
        order = epoch_order(rows, epoch, run.recipe.seed)
        numbers = order[step_of_epoch * batch : (step_of_epoch + 1) * batch]
        for turn in range(run.accumulate):
            first = (turn * rank.world_size + rank.rank) * run.micro_batch
            yield [(epoch, int(number)) for number in numbers[first : first + run.micro_batch]]
