"""How a model that writes freely answers: greedily, sampled, from a list, or by the letter of a choice."""

from __future__ import annotations

import ast
import hashlib
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.data.answers import normalise_answer, read_answers, tidy_answer
from kovqa_core.errors import DataError, SettingsError, no_names, unknown_name_error
from kovqa_core.files import read_text, to_nfc
from kovqa_core.messages import message

CHOICE_LETTERS = string.ascii_uppercase
FULL_WIDTH_TO_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # for str.translate: Ｂ is B
CHOICE_SCORES = ("letter", "text")


@dataclass(frozen=True)
class DecodingOptions:
    """How answers are chosen; at most one field differs from greedy decoding.

    Attributes:
        answers: the only possible answers, of which the likeliest is taken; empty: any text.
        choices: every question brings its own answers, of which the likeliest is taken.
        choice_score: they are compared by the likelihood of their letters, or of their whole texts.
        calibrated: beside their likelihood for the same question about an empty image.
        temperature: tokens are sampled, below 1 sharper, above 1 flatter; 0: always the likeliest.
        seed: of the samples, which depend on it and the question's id alone.
    """

    answers: tuple[str, ...] = ()
    choices: bool = False
    temperature: float = 0.0
    seed: int = 0
    choice_score: str = field(default="letter", kw_only=True)
    calibrated: bool = field(default=False, kw_only=True)

    def json_fields(self) -> dict[str, str | bool | float | None]:
        """What predictions must have in common to stand in one file; a list of answers as its SHA-256."""
        # What differs from the first ways to answer stands only where it does: earlier files do not have it.
        others: dict[str, str | bool] = (
            {} if self.choice_score == "letter" else {"choice_score": self.choice_score}
        )
        if self.calibrated:
            others["calibrated"] = True
        digest = hashlib.sha256("\n".join(self.answers).encode()).hexdigest() if self.answers else None
        return {
            "answers": digest,
            "choices": self.choices,
            "temperature": self.temperature,
            "seed": self.seed,
            **others,
        }


GREEDY_DECODING = DecodingOptions()


def decoding_from_options(
    answers: Path | None,
    *,
    choices: bool,
    temperature: float | None,
    seed: int | None,
    choices_by: str | None = None,
    calibrate: bool = False,
) -> DecodingOptions:
    """What the options of a command ask for.

    Args:
        answers: see `read_answer_list`.
        choices, temperature, seed, choices_by, calibrate: see `DecodingOptions`; None: option not used.

    Raises:
        SettingsError: two ways at once, a seed although nothing is sampled, how to choose without choices.
        DataError: the list cannot be read.
    """
    ways = {"--answers": answers, "--choices": choices, "--temperature": temperature}
    # By value: `--temperature 0` is greedy decoding, and excludes nothing.
    used = [option for option, value in ways.items() if value]
    if len(used) > 1:
        raise SettingsError(
            message(
                "data.two-ways-to-answer", "{one} and {other} exclude each other", one=used[0], other=used[1]
            ),
            message("data.two-ways-to-answer.hint", "use one of them"),
        )
    if seed is not None and not temperature:
        raise SettingsError(
            message("data.seed-without-sampling", "--seed is the seed of sampled answers"),
            message("data.seed-without-sampling.hint", "add --temperature 0.7"),
        )
    if choices_by not in (None, *CHOICE_SCORES):
        raise unknown_name_error(
            message("data.unknown-choice-score", "unknown way to compare choices '{name}'", name=choices_by),
            str(choices_by),
            CHOICE_SCORES,
        )
    if not choices and (choices_by or calibrate):
        option = "--choices-by" if choices_by else "--calibrate"
        raise SettingsError(
            message(
                "data.only-with-choices", "{option} says how a row's choices are compared", option=option
            ),
            message("data.only-with-choices.hint", "add --choices"),
        )
    listed = () if answers is None else read_answer_list(answers)
    return DecodingOptions(
        listed,
        choices,
        temperature or 0.0,
        seed or 0,
        choice_score=choices_by or "letter",
        calibrated=calibrate,
    )


def require_written_answers(decoding: DecodingOptions, max_new_tokens: int | None) -> None:
    """See that answers whose length is set are written; None: it is not.

    Raises:
        SettingsError: they are chosen out of a list, or of a row's choices.
    """
    if max_new_tokens is not None and (decoding.answers or decoding.choices):
        raise SettingsError(
            message(
                "data.length-of-a-choice",
                "--max-new-tokens: answers out of a list are chosen, and not written",
            ),
            message("data.length-of-a-choice.hint", "leave out --max-new-tokens"),
        )


def read_answer_list(path: Path) -> tuple[str, ...]:
    """The answers of a list: one a line, without blank lines and repetitions; or those of an index.

    Args:
        path: a text file, an `answers.txt`, or the folder of an index.

    Raises:
        DataError: it cannot be read, or lists nothing.
    """
    file = path / "answers.txt" if path.is_dir() else path
    text = read_text(file)
    # An `answer2label.txt`, or an index whose classes are raw, has JSON lines.
    lines = read_answers(file) if text.lstrip().startswith("{") else text.splitlines()
    answers = tuple(dict.fromkeys(answer for line in lines if (answer := tidy_answer(line))))
    if not answers:
        raise DataError(
            message("data.empty-answer-list", "{file} lists no answers", file=file),
            message("data.empty-answer-list.hint", "write one answer per line"),
        )
    return answers


def one_answer_error(model: str, way_out: str = "") -> SettingsError:
    """The error of a model that is asked for its likeliest answers, and has one alone.

    Args:
        model: which one, as the beginning of a sentence.
        way_out: what makes it have several; "": nothing does.
    """
    return SettingsError(
        message("data.one-answer", "{model} gives one answer, and no list of the likeliest", model=model),
        way_out or message("data.one-answer.hint", "leave out --top-k"),
    )


def parse_choices(cell: object, place: str) -> tuple[str, ...]:
    """The answers a question offers: a list, an object of letters and answers, or a text with | between them.

    Args:
        cell: of a table's column choices.
        place: file, line and id of the row, for errors.

    Raises:
        DataError: no choices, one alone, one twice, or more than there are letters.
    """
    values = _split_choices(cell) if isinstance(cell, str) else cell
    if isinstance(
        values, dict
    ):  # parquet has all letters of a column in each row, and null where there is no choice
        values = {letter: choice for letter, choice in values.items() if choice is not None}
    if isinstance(values, dict) and [*values] == list(CHOICE_LETTERS[: len(values)]):
        values = [*values.values()]
    if not isinstance(values, list) or cell == "":
        raise DataError(
            message("data.no-choices", "{place}: no choices", place=place),
            message(
                "data.no-choices.hint",
                'add a column choices: ["빨강", "파랑"] or 빨강|파랑; or columns A, B, …',
            ),
        )
    choices = tuple("" if value is None else to_nfc(str(value)).strip() for value in values)
    if not 2 <= len(choices) <= len(CHOICE_LETTERS) or len(set(choices)) < len(choices) or "" in choices:
        raise DataError(
            message(
                "data.bad-choices", "{place}: {count} choices: {choices}",
                place=place, count=len(choices), choices=", ".join(choices) or no_names(),
            ),
            message("data.bad-choices.hint", "two to {most} different ones are needed", most=len(CHOICE_LETTERS)),
        )  # fmt: skip
    return choices


def find_choice(choices: Sequence[str], answer: str) -> int | None:
    """The number of the choice that an answer is, to the letter or else in normal form; None: it is none of them."""
    if answer in choices:
        return list(choices).index(answer)
    forms = [normalise_answer(choice) for choice in choices]
    form = normalise_answer(answer)
    return forms.index(form) if forms.count(form) == 1 else None


def _split_choices(cell: str) -> list[object]:
    """The choices in a CSV's cell: a list of JSON or, as pandas writes it, of Python; else texts with | between."""
    try:
        values = parse_json(cell)
    except ValueError:
        values = _parse_python_list(cell)
    # `3` and `"빨강"` are valid JSON as well: only a list is one of choices, else the text itself is split.
    return values if isinstance(values, list) else [*cell.split("|")]


def _parse_python_list(cell: str) -> object:
    if not cell.lstrip().startswith("["):
        return None
    try:
        return ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
