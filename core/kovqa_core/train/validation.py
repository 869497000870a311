"""Answer every example of a split, on all processes, and score the answers.

Protocol: the evaluation transform, no example dropped or doubled; one score an example (the soft
label of the answer given, 0 for any other), summed over examples and divided once, or the score of
all captions together. So it depends neither on the number of processes nor on the batch size.
"""

from __future__ import annotations

from collections.abc import Sequence

from kovqa_core.data.example import Answer, Example
from kovqa_core.distributed import process_group
from kovqa_core.evaluate.caption_scores import score_captions


def score_split(answers: Sequence[tuple[int, Answer]], split: Sequence[Example], task: str) -> float:
    """The task's score over all processes' answers; the same number on every process.

    Questions: mean soft score in 0…1. Captions: CIDEr-D in 0…10, which the original chooses by too.
    """
    everyone = sorted(
        (pair for share in process_group.all_gather_objects(list(answers)) for pair in share),
        key=lambda pair: pair[0],
    )
    examples = [split[number] for number, _ in everyone]
    texts = [answer.text for _, answer in everyone]
    if task == "caption":
        ids, references = [e.id for e in examples], [e.captions for e in examples]
        return score_captions(ids, references, texts).metrics["CIDEr"].score
    return sum(e.answers.get(text, 0.0) for e, text in zip(examples, texts, strict=True)) / len(texts)
