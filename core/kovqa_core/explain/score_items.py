"""How sure a model is of one answer, given many encoded examples: in batches, halved where memory runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kovqa_core.answer.inference import halve_batch
from kovqa_core.answer.local import LoadedModel
from kovqa_core.models.batches import ExampleProcessor
from kovqa_core.models.device_memory import forget_tensors, out_of_memory_text, release_memory
from kovqa_core.models.explain_functions import ExplainFunctions
from kovqa_core.models.family import FamilyModel

_ROWS = 32  # at once; what a GPU could take more is not worth its memory for a hundred or two


@contextlib.contextmanager
def answering(loaded: LoadedModel) -> Iterator[None]:
    """While a model computes for this thread: no other asks it, and what is random in training is off."""
    # Others leave it as they found it, which may be as it is made: for training.
    with loaded.in_use, torch.inference_mode(), loaded.autocast():
        was_training = loaded.model.training
        loaded.model.eval()
        try:
            yield
        finally:
            loaded.model.train(was_training)


@dataclass(frozen=True)
class AnswerScorer:
    """A model, and the answer whose score is asked for.

    Attributes:
        loaded: the model.
        functions: of its family.
        answer: as the model writes it.
    """

    loaded: LoadedModel
    functions: ExplainFunctions[FamilyModel, ExampleProcessor]
    answer: str

    def score_items(self, items: Sequence[Callable[[], Any]]) -> np.ndarray:
        """The answer's log-odds for each encoded example, float64 [items].

        Args:
            items: called when they are needed: covered images of all places would fill the memory.

        Raises:
            MachineError: not even one row fits into memory.
        """
        scores: list[float] = []
        rows = min(_ROWS, len(items))
        while len(scores) < len(items):
            chosen = items[len(scores) : len(scores) + rows]
            try:
                scores += self._score_batch([make() for make in chosen])
            except (RuntimeError, MemoryError) as error:
                text = out_of_memory_text(error)
                if not text:
                    raise
                forget_tensors(error)
                rows = halve_batch(len(chosen), text)
                release_memory(self.loaded.device)
        return np.array(scores)

    def _score_batch(self, items: Sequence[Any]) -> list[float]:
        loaded = self.loaded
        batch = loaded.processor.collate(items).to(loaded.device)
        with answering(loaded):
            scores: list[float] = self.functions.score_answer(
                loaded.model, loaded.processor, batch, self.answer
            ).tolist()
        return scores
