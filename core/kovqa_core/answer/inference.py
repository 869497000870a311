"""A model answers many examples: batches of this process's share, in inference mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from kovqa_core.data.example import Answer, Example
from kovqa_core.distributed import watchdog
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.models.batches import ExampleKey, ExampleProcessor, iterate_batches
from kovqa_core.models.family import FamilyModel


def answer_examples(
    model: FamilyModel,
    processor: ExampleProcessor,
    split: Sequence[Example],
    images: Path,
    rank: RankInfo,
    device: torch.device,
    batch: int,
    workers: int = 0,
    autocast: Callable[[], Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, Answer]]:
    """(number, answer) of this process's share of a split, as they come."""
    mine = range(rank.rank, len(split), rank.world_size)
    keys: list[list[ExampleKey]] = [[(0, n) for n in mine[i : i + batch]] for i in range(0, len(mine), batch)]
    was_training = model.training
    model.eval()
    loader = iterate_batches(
        iter(keys), split, images, processor, train=False, workers=workers, pin=device.type == "cuda"
    )
    done = 0
    try:
        for numbers, ready in zip(keys, loader, strict=True):
            watchdog.set_phase("evaluating")
            with torch.inference_mode(), autocast() if autocast else torch.no_grad():
                answers = model.answer(ready.to(device))
            for (_, number), answer in zip(numbers, answers, strict=True):
                yield number, answer
            done += len(numbers)
            if progress:
                progress(done, len(mine))
    finally:
        model.train(was_training)
