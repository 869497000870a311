"""How many rows may be left out: one rule for indexing, training and answering.

Rows are left out for faults (missing, unreadable, malformed, doubled, too long for the model) or by the stated
rule of a class list (coverage). Faults count: above 1 % of the rows they are a warning, above 10 % an error
unless `--allow-left-out` lets them pass. Coverage is printed and ends nothing.
"""

from __future__ import annotations

import math

from kovqa_core.errors import DataError
from kovqa_core.messages import Message, message

WARNING_FRACTION = 0.01
ERROR_FRACTION = 0.10
_SURE = 3  # standard deviations of a count


def is_worth_a_warning(faults: int, rows: int) -> bool:
    """Is more than 1 % of the rows left out?

    Args:
        faults: rows left out for faults.
        rows: all rows, those left out too.
    """
    return faults > WARNING_FRACTION * rows


def are_too_many(faults: int, rows: int) -> bool:
    """Is more than 10 % of the rows left out? Arguments as above."""
    return faults > ERROR_FRACTION * rows


def are_surely_more(fraction: float, faults: int, rows_so_far: int) -> bool:
    """Is it certain after the first rows, in random order, that more than a fraction of all will be left out?

    By three standard deviations of what that fraction would give. For 10 %: half of all rows is noticed after
    16, an eighth after some 1,500. So a training is ended in its first minutes, not after its first epoch.
    """
    expected = fraction * rows_so_far
    return faults > expected + _SURE * math.sqrt(expected * (1 - fraction))


def left_out_text(faults: int, rows: int, reasons: str = "", *, at_least: bool = False) -> Message:
    """So many of so many, in words.

    Args:
        faults: rows left out for faults.
        rows: all of them.
        reasons: why, and which; "" where that is said elsewhere.
        at_least: not all rows were looked at.
    """
    if at_least:
        return message(
            "data.left-out-at-least",
            "at least {faults:,} of {rows:,} rows ({fraction:.1%}) are left out: {reasons}",
            faults=faults, rows=rows, fraction=faults / max(1, rows), reasons=reasons,
        )  # fmt: skip
    if reasons:
        return message(
            "data.left-out-because", "{faults:,} of {rows:,} rows ({fraction:.1%}) are left out: {reasons}",
            faults=faults, rows=rows, fraction=faults / max(1, rows), reasons=reasons,
        )  # fmt: skip
    return message(
        "data.left-out", "{faults:,} of {rows:,} rows ({fraction:.1%}) are left out",
        faults=faults, rows=rows, fraction=faults / max(1, rows),
    )  # fmt: skip


def training_reasons(unreadable: int, others: int, first: str) -> Message:
    """Why training left rows out.

    Args:
        unreadable: rows that cannot be read.
        others: rows that nothing can be learned from.
        first: what is wrong with the first of the unreadable ones; "" where nobody knows.
    """
    unlearnable = message(
        "data.left-out.unlearnable",
        "longer than model.max_text, or without an answer to learn (with model.choices: one of the choices)",
    )
    if not unreadable:
        return unlearnable
    named = message(
        "data.left-out.unreadable", "unreadable {rows:,} (first: {first})", rows=unreadable, first=first
    )
    if not others:
        return named
    return message(
        "data.left-out.two-reasons", "{named}; {unlearnable} {others:,}",
        named=named, unlearnable=unlearnable, others=others,
    )  # fmt: skip


def too_many_left_out(
    faults: int, rows: int, reasons: str, hint: Message | None = None, *, at_least: bool = False
) -> DataError:
    """The error where too many rows are left out; arguments as above, and what else could be done."""
    usual = message("data.left-out.hint", "mend them, or go on without them: add --allow-left-out")
    return DataError(left_out_text(faults, rows, reasons, at_least=at_least), hint or usual)
