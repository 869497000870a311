"""A model answers many examples: batches of this process's rows, in inference mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from kovqa_core.data.example import Answer, Example
from kovqa_core.distributed import watchdog
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.models.batches import ExampleKey, ExampleProcessor, iterate_batches
from kovqa_core.models.family import FamilyModel
from kovqa_core.progress import OnProgress, Progress, ignore_progress


def answer_examples(
    model: FamilyModel,
    processor: ExampleProcessor,
    examples: Sequence[Example],
    image_folder: Path,
    rank: RankInfo,
    device: torch.device,
    batch: int,
    workers: int = 0,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_progress: OnProgress = ignore_progress,
    on_fault: Callable[[int, str], None] | None = None,
) -> Iterator[tuple[int, Answer]]:
    """Answers of this process's rows, every world-th, as they come.

    Args:
        model: of any family; left in the mode (training or not) it came in.
        processor: makes its batches.
        examples: all rows, those of other processes too.
        image_folder: folder that image paths start from.
        rank: place of this process.
        device: where the model is.
        batch: rows at once.
        workers: loader processes.
        autocast: context of the forward passes.
        on_progress: called after every batch.
        on_fault: called with the number of an example that cannot be used, and what is wrong with it.

    Yields:
        (number of the example, answer).

    Raises:
        DataError: an example cannot be used, and there is no `on_fault`; names its id.
    """
    keys = _rank_batch_keys(rank, len(examples), batch)
    total = sum(map(len, keys))
    was_training = model.training
    model.eval()
    batches = iterate_batches(
        iter(keys), examples, image_folder, processor, train=False, workers=workers, pin=device.type == "cuda",
        keep_faults=on_fault is not None,
    )  # fmt: skip
    done = 0
    try:
        for batch_keys, model_batch in zip(keys, batches, strict=True):
            watchdog.set_phase("evaluating")
            for place, problem in model_batch.faults.items():
                assert on_fault is not None
                on_fault(batch_keys[place][1], problem)
            usable = [key for place, key in enumerate(batch_keys) if place not in model_batch.faults]
            if not usable:
                continue
            # Left before every yield: a generator shares its caller's thread, whose mode this would set.
            with torch.inference_mode(), autocast():
                answers = model.answer(model_batch.to(device))
            for (_, number), answer in zip(usable, answers, strict=True):
                yield number, answer
            done += len(batch_keys)
            on_progress(Progress("evaluation", done, total))
    finally:
        model.train(was_training)


def _rank_batch_keys(rank: RankInfo, count: int, batch: int) -> list[list[ExampleKey]]:
    """This process's rows of `count`, every world-th, batch by batch."""
    # Epoch 0 for all: what an example's random numbers depend on stays the same from run to run.
    numbers = range(rank.rank, count, rank.world_size)
    return [[(0, n) for n in numbers[i : i + batch]] for i in range(0, len(numbers), batch)]
