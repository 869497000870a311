"""Examples -> batches, prepared ahead by loader processes; for training and for answering alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from kovqa_core.data.example import Example
from kovqa_core.errors import DataError, KovqaError
from kovqa_core.messages import Message, message
from kovqa_core.process_pool import outlive_signals, shared_memory_errors, signals_blocked

CollatedType = TypeVar("CollatedType")
ExampleKey = tuple[int, int]  # (epoch, number of the example)


@dataclass(frozen=True)
class ModelBatch:
    """Examples ready for a model.

    Attributes:
        tensors: by names that belong to the family; None where an optional one is absent (no padding).
        ids: of the examples in it, in the order of the tensors' rows.
        left_out: ids of examples that cannot be learned from (unreadable image, too long for the model, no answer).
        choices: for every example the answers it offers, where a model chooses among them.
        faults: of those asked for, by their place among them: what is wrong with an example that is not in it.
        on_host: the tensors as they were before they went to a device, for what Python code reads of them.
    """

    tensors: dict[str, Any]  # not `Tensor | None`: every use would have to prove what its family knows
    ids: list[str]
    left_out: list[str] = field(default_factory=list)
    choices: list[Sequence[str]] = field(default_factory=list)
    faults: dict[int, DataError] = field(default_factory=dict)
    on_host: dict[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device) -> ModelBatch:
        """The same batch on a device."""
        moved = {
            name: t if t is None else t.to(device, non_blocking=True) for name, t in self.tensors.items()
        }
        return replace(self, tensors=moved, on_host=self.on_host or self.tensors)

    def pin_memory(self) -> ModelBatch:
        """The same batch in page-locked memory; called by the data loader."""
        pinned = {name: t if t is None else t.pin_memory() for name, t in self.tensors.items()}
        return replace(self, tensors=pinned)


class ExampleProcessor(Protocol):
    """Examples -> batches."""

    # An encoded example is the family's own type, which nothing but its own `collate` reads.

    def encode(self, example: Example, images: Path, *, train: bool, rng: np.random.Generator) -> Any:
        """One example.

        Args:
            example: of a split, or of a table to be answered.
            images: folder that the example's image path starts in.
            train: augment, and encode what is to be learned.
            rng: all randomness of this example.

        Raises:
            DataError: it cannot be used; names its id.
        """

    def collate(self, items: Sequence[Any]) -> ModelBatch:
        """A batch of encoded examples, padded to the longest of them."""


class _BatchDataset(Dataset[ModelBatch | KovqaError]):
    """Encodes whole micro-batches; an error travels as a value: torch would wrap its message."""

    def __init__(
        self,
        split: Sequence[Example],
        images: Path,
        processor: ExampleProcessor,
        *,
        train: bool,
        seed: int,
        keep_faults: bool = False,
    ) -> None:
        self.split, self.images, self.processor = split, images, processor
        self.train, self.seed, self.keep_faults = train, seed, keep_faults

    def __getitem__(self, keys: list[ExampleKey]) -> ModelBatch | KovqaError:
        items, faults = [], dict[int, DataError]()
        try:
            for place, key in enumerate(keys):
                try:
                    items.append(self._encode(*key))
                except DataError as error:
                    if not self.keep_faults:
                        raise
                    faults[place] = error
            batch = self.processor.collate(items) if items else ModelBatch({}, [])
            # Training counts them with the rows a family leaves out; who answers looks at `faults`.
            unusable = [self.split[keys[place][1]].id for place in faults] if self.train else []
            batch = replace(batch, left_out=[*batch.left_out, *unusable], faults=faults)
            return batch if get_worker_info() is None else _share_memory(batch)
        except KovqaError as error:
            return error

    def _encode(self, epoch: int, number: int) -> object:
        rng = np.random.default_rng([self.seed, epoch, number])
        # A function of seed, epoch and example alone: neither the number of workers nor a restart shows.
        return self.processor.encode(self.split[number], self.images, train=self.train, rng=rng)


def _share_memory(batch: ModelBatch) -> ModelBatch:
    """In a loader process: the batch where its reader can see it.

    Torch would do so in a thread of its queue, which prints an error and drops the batch: its reader would
    wait for ever.

    Raises:
        MachineError: there is no room for it.
    """
    with shared_memory_errors(_without_loaders()):
        for tensor in batch.tensors.values():
            if tensor is not None and tensor.numel():  # nothing cannot be mapped
                tensor.share_memory_()
    return batch


def _without_loaders() -> Message:
    return message(
        "models.without-loaders",
        "; or do without loader processes: loader_workers: 0 in the profile, or --set profile.loader_workers=0",
    )


def iterate_batches(
    keys: Iterator[list[ExampleKey]],
    split: Sequence[Example],
    images: Path,
    processor: ExampleProcessor,
    *,
    train: bool,
    seed: int = 0,
    workers: int = 0,
    pin: bool = False,
    keep_faults: bool = False,
    prefetch: int = 4,
) -> Iterator[ModelBatch]:
    """Batches of the given keys, in their order, prepared ahead by `workers` processes.

    The workers end with this process alone: a signal that asks for a stop is for this process.

    Args:
        keys: of each batch, (epoch, number in the split) of its examples.
        split: the examples.
        images: folder that their image paths start in.
        processor: of the model's family.
        train: augment, and encode what is to be learned.
        seed: of the run.
        workers: processes; 0: this one prepares.
        pin: into page-locked memory, for a GPU.
        keep_faults: leave out examples that cannot be used, and say so in the batch.
        prefetch: batches that each worker prepares ahead.

    Raises:
        DataError: an example cannot be used, and `keep_faults` is off; names its id.
        MachineError: the processes' shared memory is full.
    """
    dataset = _BatchDataset(split, images, processor, train=train, seed=seed, keep_faults=keep_faults)
    loader: DataLoader[ModelBatch | KovqaError] = DataLoader(
        dataset,
        batch_size=None,
        sampler=keys,  # iterated once: an iterator will do
        num_workers=workers,
        collate_fn=_identity_collate,
        pin_memory=pin,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=_begin_worker,
    )
    with signals_blocked(), shared_memory_errors(_without_loaders()):
        batches = iter(loader)  # starts the workers
    while True:
        with shared_memory_errors(
            _without_loaders()
        ):  # where memory was promised, and is missing, a worker dies of SIGBUS
            batch = next(batches, None)
        if batch is None:
            return
        if isinstance(batch, KovqaError):
            raise batch
        yield batch


def _begin_worker(number: int) -> None:
    """Torch's workers die of a signal to their group, and take down the process that wants to save."""
    outlive_signals()


def _identity_collate(batch: CollatedType) -> CollatedType:
    """Batches come collated: without a batch size torch would still copy them leaf by leaf."""
    return batch
