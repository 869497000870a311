"""Circular evaluation: a question is asked once for each of its choices, which move on by one place each time.

A model that prefers a letter is found out: the question counts as answered where every turn is answered right.
Source: MMBench (arXiv 2307.06281, section 4.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kovqa_core.data.example import Example

CIRCULAR_COLUMN = "circular"  # of a row's columns: the id of the question it is a turn of


def circular_rows(example: Example) -> Iterator[Example]:
    """The turns of a question, the first as it is: `17`, `17/2`, `17/3`, …, one for each choice.

    Args:
        example: with choices; the texts of its answers name them, so they stay. Without choices: itself alone.
    """
    if not example.choices:
        yield example
        return
    columns = {**example.columns, CIRCULAR_COLUMN: example.id}
    for turn in range(len(example.choices)):
        choices = (*example.choices[turn:], *example.choices[:turn])
        id = f"{example.id}/{turn + 1}" if turn else example.id
        yield replace(example, id=id, choices=choices, columns=columns)
