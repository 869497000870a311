"""How a contest wants choices written: as texts, letters or numbers; as its sample has them, unless the user says.

A sample is a placeholder in every row, mostly the same one: a letter, or a number. Numbers count from 0 where one of
them is 0, as BBQ's labels do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kovqa_core.data.choice_columns import named_choice
from kovqa_core.data.decoding import CHOICE_LETTERS
from kovqa_core.errors import DataError, list_ids, unknown_name_error
from kovqa_core.evaluate.predictions import Predictions
from kovqa_core.messages import Message, message

AUTO, TEXT = "auto", "text"
# Name -> how the choice of a number, from 0, is written; "text" is written as the prediction has it.
CHOICE_FORMS: dict[str, Callable[[int], str]] = {
    "letter": lambda number: CHOICE_LETTERS[number],
    "number": lambda number: str(number + 1),
    "number-from-0": str,
}
_NUMBER = re.compile("[0-9]{1,2}")


def answers_in_form(
    predicted: Predictions, cells: Sequence[str], form: str, path: Path
) -> tuple[dict[str, str], Message | None]:
    """Answers by id as a contest wants them, and what was decided about their form.

    Args:
        predicted: the answers.
        cells: of the sample's column of answers.
        form: a key of CHOICE_FORMS, "text", or "auto": what these cells look like.
        path: of the predictions, for errors.

    Raises:
        SettingsError: an unknown form.
        DataError: an answer that is none of its choices.
    """
    chosen = _choose_form(form, cells)
    texts = dict(predicted.texts)
    if chosen == TEXT:
        return texts, None
    if form == AUTO and not predicted.choices:
        # A number is a placeholder of any contest.
        return texts, _without_choices_note() if chosen == "letter" else None
    # An empty answer is filled, or refused, like any other.
    given = {id: text for id, text in texts.items() if text.strip()}
    written = _write_choices(given, predicted.choices, chosen, path)
    note = message(
        "submit.choice-form", "answers as {form}, as the sample has them (--answers-as takes another form)",
        form=chosen,
    )  # fmt: skip
    return texts | written, note if form == AUTO else None


def _without_choices_note() -> Message:
    return message(
        "submit.choice-form-without-choices",
        "the sample's answers look like letters of choices, but the predictions have no column choices: texts are written",
    )


def _choose_form(name: str, cells: Sequence[str]) -> str:
    if name != AUTO:
        if name not in (TEXT, *CHOICE_FORMS):
            known = (AUTO, TEXT, *CHOICE_FORMS)
            raise unknown_name_error(
                message("submit.unknown-choice-form", "unknown way to write choices '{name}'", name=name),
                name,
                known,
            )
        return name
    stripped = [cell.strip() for cell in cells]
    if not all(stripped):
        return TEXT
    if all(len(cell) == 1 and cell in CHOICE_LETTERS for cell in stripped):
        return "letter"
    if all(_NUMBER.fullmatch(cell) for cell in stripped):
        return "number-from-0" if "0" in stripped else "number"
    return TEXT


def _write_choices(
    texts: Mapping[str, str], choices_of: Mapping[str, Sequence[str]], form: str, predictions: Path
) -> dict[str, str]:
    numbers = {id: named_choice(choices_of.get(id, ()), text) for id, text in texts.items()}
    if foreign := [id for id, number in numbers.items() if number is None]:
        raise DataError(
            message(
                "submit.answer-is-no-choice", "{predictions}: an answer that is none of its row's choices: {ids}",
                predictions=predictions, ids=list_ids(foreign),
            ),
            message("submit.answer-is-no-choice.hint", "predict with --choices, or use --answers-as text"),
        )  # fmt: skip
    return {id: CHOICE_FORMS[form](number) for id, number in numbers.items() if number is not None}
