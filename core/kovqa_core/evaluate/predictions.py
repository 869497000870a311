"""A model's answers or captions by id, and the same by the ids of another file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kovqa_core.errors import DataError, list_ids
from kovqa_core.evaluate.join_ids import join_by_text
from kovqa_core.evaluate.likeliest_column import Likeliest
from kovqa_core.messages import message


@dataclass(frozen=True)
class Predictions:
    """A model's answers or captions, by id.

    Attributes:
        task: "vqa" (lines have an "answer") or "caption" (they have a "caption").
        texts: id -> answer or caption.
        confidence: id -> how sure the model was, 0…1; ids whose line says nothing are missing.
        unusable_scores: ids whose score is not in 0…1 (or NaN); it counts as missing.
        images: id -> image, where the file has a column for it.
        questions: numbered id -> question, where the file has a column for it (`join_ids.join_by_text`).
        numbered: of these, the ids that were numbered here, in the order of the file.
        likeliest: id -> the likeliest answers and their probabilities, where the file has them (`--top-k`).
        choices: id -> what its question offers, where the file has columns for it.
        abstained_from: id -> the model's own answer, where "unknown" was given in its place (`--unknown-below`).
    """

    task: str
    texts: dict[str, str]
    confidence: dict[str, float]
    unusable_scores: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    questions: Mapping[str, str] = field(default_factory=dict)
    numbered: frozenset[str] = frozenset()
    likeliest: Mapping[str, Likeliest] = field(default_factory=dict)
    abstained_from: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)


def rename_ids(predictions: Predictions, new_ids: Mapping[str, str]) -> Predictions:
    """Predictions by other ids; those that `new_ids` does not name keep theirs."""
    return replace(
        predictions,
        texts={new_ids.get(id, id): text for id, text in predictions.texts.items()},
        confidence={new_ids.get(id, id): score for id, score in predictions.confidence.items()},
        unusable_scores=tuple(new_ids.get(id, id) for id in predictions.unusable_scores),
        images={new_ids.get(id, id): image for id, image in predictions.images.items()},
        questions={new_ids.get(id, id): question for id, question in predictions.questions.items()},
        numbered=frozenset(new_ids.get(id, id) for id in predictions.numbered),
        likeliest={new_ids.get(id, id): answers for id, answers in predictions.likeliest.items()},
        abstained_from={new_ids.get(id, id): text for id, text in predictions.abstained_from.items()},
        choices={new_ids.get(id, id): choices for id, choices in predictions.choices.items()},
    )


def renumber_ids(
    predictions: Predictions, ids: Iterable[str], path: Path, row_questions: Mapping[str, str], other: Path
) -> Predictions:
    """Predictions of which some have the ids of the rows that ask the same.

    Args:
        predictions: of the file `path`.
        ids: those to find, numbered ones.
        path: for errors.
        row_questions: of the rows of the file `other`, by their numbered ids.
        other: an index, or other predictions.

    Raises:
        DataError: none of the rows asks a question, or a file has no questions: nobody knows what is answered.
    """
    joined = join_by_text({id: predictions.questions.get(id, "") for id in ids}, row_questions)
    if unknown := [id for id, row_id in joined.items() if row_id is None]:
        raise DataError(
            message(
                "evaluate.question-not-found",
                "{path}, {other}: ids that repeat under one image, and no same question tells which is meant: {ids}",
                path=path, other=other, ids=list_ids(sorted(unknown)),
            ),
            message(
                "evaluate.question-not-found.hint",
                "give both files the ids of kovqa predict, or the same texts in a column question",
            ),
        )  # fmt: skip
    return rename_ids(predictions, {id: row_id for id, row_id in joined.items() if row_id is not None})
