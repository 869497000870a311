"""A classifier's answers: the likeliest class of each row and, where they are asked for, those behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from kovqa_core.data.example import Answer
from kovqa_core.models.family import ReadAnswers
from kovqa_core.models.read_later import read_later


def begin_class_answers(
    answers: Sequence[str],
    logits: Tensor,
    probability: Callable[[Tensor], Tensor],
    top_k: int = 1,
) -> ReadAnswers:
    """The most likely class of each row with its probability, to be read later.

    Args:
        answers: the classes, C.
        logits: [B, C] in fp32, or what else grows with the probability.
        probability: of such values.
        top_k: that many of the likeliest, all of them where there are no more.
    """
    best = logits.max(1)
    if top_k == 1:
        read = read_later(best.indices, probability(best.values))
        return lambda: [Answer(answers[i], min(score, 1.0)) for i, score in zip(*read(), strict=True)]
    ranked = logits.topk(min(top_k, logits.shape[1]))
    read = read_later(
        best.indices, probability(best.values), ranked.indices, probability(ranked.values)
    )  # one wait for all of them
    return lambda: [_ranked_answer(answers, *row) for row in zip(*read(), strict=True)]


def _ranked_answer(
    answers: Sequence[str], best: int, score: float, ranked: Sequence[int], scores: Sequence[float]
) -> Answer:
    """An answer with the likeliest; of equal ones `max` and `topk` may each take another, and the answer is max's."""
    others = [(answers[i], min(s, 1.0)) for i, s in zip(ranked, scores, strict=True) if i != best]
    top = min(score, 1.0)
    return Answer(answers[best], top, ((answers[best], top), *others[: len(ranked) - 1]))
