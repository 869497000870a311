"""Index -> batches: which examples, in which order, on which process, from which step on.

The order, the crops and every other draw are functions of (seed, epoch, example). Nothing depends
on the number of processes, of loader workers, or on where a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from kovqa_core.data.example import Example
from kovqa_core.errors import KovqaError
from kovqa_core.models.family import Batch, Processor
from kovqa_core.processes import outlive_signals, signals_blocked
from kovqa_core.settings.run import Run
from kovqa_core.train.ranks import Rank

Key = tuple[int, int]  # (epoch, number of the example)


@lru_cache(maxsize=2)
def order(rows: int, epoch: int, seed: int) -> np.ndarray:
    """The order of an epoch: a permutation of the example numbers."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def micro_batches(run: Run, rows: int, rank: Rank, start: int, end: int) -> Iterator[list[Key]]:
    """Keys of one process's micro-batches, from optimizer step `start` to before `end`.

    The global batch of a step is cut into world × accumulate equal pieces; a process takes its
    neighbours' next pieces in turn.
    """
    batch, per_epoch = run.recipe.optim.global_batch, rows // run.recipe.optim.global_batch
    for step in range(start, end):
        epoch, within = divmod(step, per_epoch)
        numbers = order(rows, epoch, run.recipe.seed)[within * batch : (within + 1) * batch]
        for turn in range(run.accumulate):
            piece = (turn * rank.world + rank.rank) * run.micro_batch
            yield [(epoch, int(number)) for number in numbers[piece : piece + run.micro_batch]]


class _Batches(Dataset[Batch | KovqaError]):
    """Encodes whole micro-batches; an error travels as a value, for torch would wrap its message."""

    def __init__(
        self, split: Sequence[Example], images: Path, processor: Processor, train: bool, seed: int
    ) -> None:
        self.split, self.images, self.processor = split, images, processor
        self.train, self.seed = train, seed

    def __getitem__(self, keys: list[Key]) -> Batch | KovqaError:
        try:
            return self.processor.collate([self._encode(*key) for key in keys])
        except KovqaError as error:
            return error

    def _encode(self, epoch: int, number: int) -> object:
        rng = np.random.default_rng([self.seed, epoch, number])
        return self.processor.encode(self.split[number], self.images, self.train, rng)


def batches(
    keys: Iterator[list[Key]],
    split: Sequence[Example],
    images: Path,
    processor: Processor,
    *,
    train: bool,
    seed: int = 0,
    workers: int = 0,
    pin: bool = False,
) -> Iterator[Batch]:
    """Batches of the given keys, in their order, prepared ahead by `workers` processes.

    Those end with this process alone: signals that ask for a stop are its business.

    Raises:
        DataError: an example cannot be used; names its id.
    """
    dataset = _Batches(split, images, processor, train, seed)
    loader: DataLoader[Batch | KovqaError] = DataLoader(
        dataset,
        batch_size=None,
        sampler=keys,  # asked once: an iterator will do
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_begin_worker,
    )
    with signals_blocked():
        ready = iter(loader)  # starts the workers
    for batch in ready:
        if isinstance(batch, KovqaError):
            raise batch
        yield batch


def _begin_worker(number: int) -> None:
    """Torch's own workers die of a signal to the group, and take the process down that wants to save."""
    outlive_signals()


def _as_it_is(batch: Any) -> Any:
    return batch
