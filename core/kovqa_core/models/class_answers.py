"""A classifier's answers: the likeliest class of each row, or of its choices, and those behind it where asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from kovqa_core.data.answers import find_class
from kovqa_core.data.example import Answer, Example
from kovqa_core.errors import DataError
from kovqa_core.messages import message
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.family import ReadAnswers
from kovqa_core.models.read_later import read_later

CHOICE_LABELS = (
    "choice_labels"  # of a batch's tensors: classes of the rows' choices [B, choices], -1 after the last
)
ClassChoices = Sequence[tuple[str, int]]  # choices of a row that are classes, with the label of each


def find_class_choices(label_of: Mapping[str, int], example: Example) -> ClassChoices:
    """The choices of a row that are classes; none where it offers none.

    Args:
        label_of: see `number_classes`.
        example: to be answered.

    Raises:
        DataError: it offers choices, and none of them is a class.
    """
    found = [(choice, find_class(label_of, choice)) for choice in example.choices]
    classes = [(choice, label) for choice, label in found if label is not None]
    if example.choices and not classes:
        raise DataError(
            message(
                "models.no-choice-is-a-class",
                "id {id}: none of its choices is an answer that the model knows: {choices}",
                id=example.id,
                choices=", ".join(example.choices),
            ),
            message(
                "models.no-choice-is-a-class.hint", "leave out --choices, or name a vision language model"
            ),
        )
    return classes


def count_foreign_choices(label_of: Mapping[str, int], examples: Sequence[Example]) -> int:
    """Rows with a choice that is not a class: it cannot be chosen."""
    return sum(
        any(find_class(label_of, choice) is None for choice in example.choices) for example in examples
    )


def choice_tensors(choices: Sequence[ClassChoices]) -> tuple[dict[str, Tensor], list[Sequence[str]]]:
    """What a batch has of its rows' choices: a tensor of their labels, and their texts."""
    width = max(1, *map(len, choices))
    labels = [[*(label for _, label in row), *[-1] * (width - len(row))] for row in choices]
    return {CHOICE_LABELS: torch.tensor(labels)}, [[choice for choice, _ in row] for row in choices]


def begin_answers_of(
    batch: ModelBatch,
    answers: Sequence[str],
    logits: Tensor,
    probability: Callable[[Tensor], Tensor],
    top_k: int = 1,
) -> ReadAnswers:
    """As `begin_class_answers`, but of a row that offers choices the likeliest of these that are classes.

    A score stays that of the class among all classes.
    """
    of_all = begin_class_answers(answers, logits, probability, top_k)
    labels = batch.tensors.get(CHOICE_LABELS)
    if labels is None:
        return of_all
    read = read_later(probability(logits.gather(1, labels.clamp(min=0))))

    def read_answers() -> list[Answer]:
        (offered,) = read()
        rows = zip(of_all(), batch.choices, offered, strict=True)
        return [_choose(choices, scores, top_k) if choices else free for free, choices, scores in rows]

    return read_answers


def _choose(choices: Sequence[str], scores: Sequence[float], top_k: int) -> Answer:
    """The choice of the highest score, the first of equals, with those behind it."""
    ranked = sorted(zip(choices, scores, strict=False), key=lambda pair: -pair[1])[:top_k]
    likeliest = tuple((choice, min(score, 1.0)) for choice, score in ranked)
    return Answer(*likeliest[0], likeliest if top_k > 1 else ())


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
