"""Which columns of a row say its choices, its true choice and the choice that means "unknown".

An answer may name its choice by text, by letter (`B`, `b)`, `②`) or, counted from 1, by number. A text wins: `A` is
the choice that is written `A`, wherever it stands. Names of columns: MMBench's `A`, `B`, …; BBQ's `ans0`, `ans1`, …
and `label`, which counts from 0 (docs/sources/choices.md, C1 and C2).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from itertools import takewhile

from kovqa_core.data.answers import normalise_answer
from kovqa_core.data.decoding import CHOICE_LETTERS, FULL_WIDTH_TO_ASCII, find_choice, parse_choices
from kovqa_core.data.tables import COLUMN_ALIASES, cell_text
from kovqa_core.errors import DataError

# One column for each choice, the first of them always filled.
CHOICE_COLUMNS: tuple[tuple[str, ...], ...] = (
    tuple(CHOICE_LETTERS),
    tuple(f"ans{number}" for number in range(len(CHOICE_LETTERS))),
)
# pandas writes the numbers of a column with gaps as 2.0.
_POSITION = re.compile(r"[(\[]?\s*(?:([A-Za-z])|([①-⑳])|([0-9]{1,2})(?:\.0)?)\s*(?:[.)\]:]|번)?")
_NUMBER = re.compile(r"[-+−]?[0-9][0-9.,]*")
# What choices say that mean "nobody can know", in normal form: BBQ's ten wordings, and those of Korean contests.
UNKNOWN_WORDINGS = frozenset(
    {
        "unknown", "undetermined", "not known", "not answerable", "not enough info", "not enough information",
        "can't answer", "cannot answer", "can't be determined", "cannot be determined",
        "알 수 없음", "알 수 없다", "알 수 없습니다", "모름", "판단할 수 없음", "답할 수 없음", "정보 부족", "알수없음",
    }
)  # fmt: skip


def may_hold_choices(columns: Collection[str], own_names: Iterable[str]) -> bool:
    """Can rows with these columns offer choices?

    Args:
        columns: of the rows.
        own_names: of a column that has all choices.
    """
    return any(name in columns for name in (*own_names, *(names[0] for names in CHOICE_COLUMNS)))


def find_choice_columns(record: Mapping[str, object], taken: Container[str]) -> list[str]:
    """The columns that have one choice each, in order; none where the row fills no two of them.

    Args:
        record: column -> cell.
        taken: columns that are something else already.
    """
    for names in CHOICE_COLUMNS:
        if names[0] in record:
            columns = [*takewhile(lambda name: name in record and name not in taken, names)]
            if len(filled_cells(record, columns)) > 1:
                return columns
    return []


def filled_cells(record: Mapping[str, object], columns: Sequence[str]) -> list[object]:
    """The cells of a row up to the last that says something: it may have three choices where others have four."""
    cells = [record[name] for name in columns]
    while cells and _is_blank(cells[-1]):
        cells.pop()
    return cells


def row_choices(record: Mapping[str, object]) -> tuple[str, ...]:
    """What a row offers in columns of their usual names; () where it offers nothing that could be chosen from."""
    cell = next((record[name] for name in COLUMN_ALIASES["choices"] if record.get(name)), None)
    if cell is None:
        cell = filled_cells(record, find_choice_columns(record, ())) or None
    try:
        return () if cell is None else parse_choices(cell, "")
    except DataError:  # a column of this name may be anything
        return ()


def _is_blank(cell: object) -> bool:
    try:
        return not cell_text(cell).strip()
    except TypeError:  # a list
        return False


def named_choice(choices: Sequence[str], answer: str) -> int | None:
    """The number of the choice that a cell names, by its text or else by letter or number; None: it names none."""
    number = find_choice(choices, answer)
    return _named_position(choices, answer) if number is None else number


def _named_position(choices: Sequence[str], answer: str) -> int | None:
    match = _POSITION.fullmatch(answer.translate(FULL_WIDTH_TO_ASCII).strip())
    if match is None:
        return None
    letter, circled, digits = match.groups()
    if digits:
        # Among choices that are numbers, a number is an answer, though a wrong one.
        position = -1 if any(_NUMBER.fullmatch(choice) for choice in choices) else int(digits) - 1
    else:
        position = ord(circled) - ord("①") if circled else CHOICE_LETTERS.index(letter.upper())
    return position if 0 <= position < len(choices) else None


def counts_from_zero(choices: Sequence[str], answer: str) -> bool:
    """Does an answer name a choice by the number 0? Then all numbers of its table mean other choices."""
    has_numbers = any(_NUMBER.fullmatch(choice) for choice in choices)
    return answer.translate(FULL_WIDTH_TO_ASCII).strip() in ("0", "0.0") and not has_numbers


def means_two_choices(choices: Sequence[str], answer: str) -> bool:
    """Is an answer the text of one choice and the letter of another?"""
    by_text, by_letter = find_choice(choices, answer), _named_position(choices, answer)
    return by_text is not None and by_letter is not None and by_text != by_letter


def equal_choices(choices: Sequence[str]) -> bool:
    """Do two of them have one normal form? Then no answer tells them apart."""
    return len({normalise_answer(choice) for choice in choices}) < len(choices)


def unknown_by_wording(choices: Sequence[str]) -> str:
    """The one choice whose wording says that nobody can know; "" where there is none, or more than one."""
    found = [choice for choice in choices if normalise_answer(choice).rstrip(".") in UNKNOWN_WORDINGS]
    return found[0] if len(found) == 1 else ""
