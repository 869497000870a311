"""Answer every example of a split, on all processes, and score the answers.

Protocol: the evaluation transform, no example dropped or doubled; one score an example (the soft
label of the answer given, 0 for any other), summed over examples and divided once, or the score of
all captions together. So it depends neither on the number of processes nor on the batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from kovqa_core.data.example import Answer, Example
from kovqa_core.models.family import Processor
from kovqa_core.results.caption_scores import score_captions
from kovqa_core.train import ranks, watchdog
from kovqa_core.train.loader import Key, batches


def answer_all(
    model: Any,
    processor: Processor,
    split: Sequence[Example],
    images: Path,
    rank: ranks.Rank,
    device: torch.device,
    batch: int,
    workers: int = 0,
    autocast: Callable[[], Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, Answer]]:
    """(number, answer) of this process's share of a split, as they come."""
    mine = range(rank.rank, len(split), rank.world)
    keys: list[list[Key]] = [[(0, n) for n in mine[i : i + batch]] for i in range(0, len(mine), batch)]
    was_training = model.training
    model.eval()
    loader = batches(
        iter(keys), split, images, processor, train=False, workers=workers, pin=device.type == "cuda"
    )
    done = 0
    try:
        for numbers, ready in zip(keys, loader, strict=True):
            watchdog.doing("evaluating")
            with torch.inference_mode(), autocast() if autocast else torch.no_grad():
                answers = model.answer(ready.to(device))
            for (_, number), answer in zip(numbers, answers, strict=True):
                yield number, answer
            done += len(numbers)
            if progress:
                progress(done, len(mine))
    finally:
        model.train(was_training)


def score_split(answers: Sequence[tuple[int, Answer]], split: Sequence[Example], task: str) -> float:
    """The task's score over all processes' answers; the same number on every process.

    Questions: mean soft score in 0…1. Captions: CIDEr-D in 0…10, which the original chooses by too.
    """
    everyone = sorted(
        (pair for share in ranks.gather(list(answers)) for pair in share), key=lambda pair: pair[0]
    )
    examples = [split[number] for number, _ in everyone]
    texts = [answer.text for _, answer in everyone]
    if task == "caption":
        ids, references = [e.id for e in examples], [e.captions for e in examples]
        return score_captions(ids, references, texts).metrics["CIDEr"].score
    return sum(e.answers.get(text, 0.0) for e, text in zip(examples, texts, strict=True)) / len(texts)
