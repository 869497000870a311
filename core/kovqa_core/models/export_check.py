"""What a family offers to have an export of it checked: the same numbers by kovqa and by the library it was made for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

from kovqa_core.data.example import Example
from kovqa_core.models.batches import ExampleProcessor, ModelBatch

ModelType = TypeVar("ModelType")
ProcessorType = TypeVar("ProcessorType")


@dataclass(frozen=True)
class ExportCheck(Generic[ModelType, ProcessorType]):
    """How both sides come to the logits of an example whose image is in memory.

    Attributes:
        library: what reads the export, for people.
        own_logits: model in fp32, processor, example -> logits, [C], [V] or [tokens, V].
        example_row: processor, example -> what the other side is told beside the image, as JSON.
        code: Python that defines `logits(row, image, device)`, the same by the other library, in the export's folder;
            `image` is a `PIL.Image`. It is run where kovqa cannot be imported.
    """

    library: str
    own_logits: Callable[[ModelType, ProcessorType, Example], Tensor]
    example_row: Callable[[ProcessorType, Example], Mapping[str, object]]
    code: str


@dataclass(frozen=True)
class ExportedModel:
    """What a family says of an export it has written.

    Attributes:
        loading: Python that loads it, for its card.
        notes: for people.
        is_rounded: were weights rounded on the way, so that its numbers are only about the model's?
    """

    loading: str
    notes: tuple[str, ...] = ()
    is_rounded: bool = False


def one_example_batch(processor: ExampleProcessor, example: Example) -> ModelBatch:
    """A batch of one example that is to be answered, on the CPU."""
    item = processor.encode(example, Path(), train=False, rng=np.random.default_rng(0))
    return processor.collate([item])
