"""What rows of an index have besides image, question and answer: choices, a context, columns handed on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kovqa_core.data.choice_columns import means_two_choices
from kovqa_core.data.decoding import find_choice
from kovqa_core.data.example import Example

if TYPE_CHECKING:
    import numpy as np

# Bits of a row's traits.
_HAS_CHOICES, _HAS_CONTEXT, _ANSWER_NO_CHOICE, _HAS_UNKNOWN, _TEXT_AND_LETTER = 1, 2, 4, 8, 16
_NAMES = ("choices", "contexts", "answer_no_choice", "other_columns", "unknown_choices", "text_and_letter")


@dataclass(frozen=True)
class RowExtras:
    """How many rows have what, by split; splits without any are missing.

    Attributes:
        choices: rows that offer answers to choose from.
        contexts: rows with a text to be read before the question.
        answer_no_choice: rows with choices whose answer is none of them: their letter cannot be learned.
        other_columns: names of the table's columns that are handed on.
        unknown_choices: rows of which one choice means that nobody can know.
        text_and_letter: rows whose answer is the text of a choice, and the letter of another.
    """

    choices: Mapping[str, int] = field(default_factory=dict)
    contexts: Mapping[str, int] = field(default_factory=dict)
    answer_no_choice: Mapping[str, int] = field(default_factory=dict)
    other_columns: Sequence[str] = ()
    unknown_choices: Mapping[str, int] = field(default_factory=dict)
    text_and_letter: Mapping[str, int] = field(default_factory=dict)

    def json_fields(self) -> dict[str, object]:
        """The fields of `index.json`; what no row has is left out."""
        return {name: value for name in _NAMES if (value := getattr(self, name))}


def read_row_extras(fields: Mapping[str, object]) -> RowExtras:
    """What an `index.json` says; one of an earlier version says nothing."""
    return RowExtras(**{name: fields[name] for name in _NAMES if name in fields})  # type: ignore[arg-type]


def row_traits(example: Example) -> int:
    """The traits of a row as bits, so that they are counted without reading it again."""
    traits = _HAS_CONTEXT if example.context else 0
    if example.choices:
        traits |= _HAS_CHOICES
        best = max(example.answers, key=lambda answer: example.answers[answer], default=None)
        if best is not None and find_choice(example.choices, best) is None:
            traits |= _ANSWER_NO_CHOICE
        if best is not None and means_two_choices(example.choices, best):
            traits |= _TEXT_AND_LETTER
        if example.unknown:
            traits |= _HAS_UNKNOWN
    return traits


class _TraitRows(Protocol):
    """The rows of a split in one shard: their traits [rows], and the names of the columns they hand on."""

    row_traits: np.ndarray
    other_columns: tuple[str, ...]


def count_row_extras(splits: Mapping[str, Iterable[tuple[_TraitRows, np.ndarray]]]) -> RowExtras:
    """What the kept rows have.

    Args:
        splits: of each split its rows by shard, each with a mask [rows] of those kept.
    """

    def count(trait: int) -> dict[str, int]:
        counts = {
            split: sum(int(((rows.row_traits & trait) > 0)[mask].sum()) for rows, mask in masks)
            for split, masks in splits.items()
        }
        return {split: number for split, number in counts.items() if number}

    names = (name for masks in splits.values() for rows, _ in masks for name in rows.other_columns)
    return RowExtras(
        count(_HAS_CHOICES), count(_HAS_CONTEXT), count(_ANSWER_NO_CHOICE), tuple(dict.fromkeys(names)),
        count(_HAS_UNKNOWN), count(_TEXT_AND_LETTER),
    )  # fmt: skip
