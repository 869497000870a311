"""A row of a published benchmark as an example: its choices as texts, its answer as one of them.

Sources of the layouts: docs/sources/benchmarks.md.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kovqa_core.data.answers import MISSING_WORDS
from kovqa_core.data.benchmark_sets import CRITERIA_COLUMN, DESCRIPTION_COLUMN, REFERENCE_COLUMN
from kovqa_core.data.decoding import CHOICE_LETTERS, find_choice, parse_choices
from kovqa_core.data.example import Example
from kovqa_core.data.json_values import JsonRecord
from kovqa_core.data.table_columns import json_value
from kovqa_core.data.tables import COLUMN_ALIASES, record_text
from kovqa_core.errors import DataError
from kovqa_core.index.left_out import (
    ANNOTATION_MISSING,
    ANSWER_EMPTY,
    ANSWER_NO_CHOICE,
    CHOICES_UNUSABLE,
    QUESTION_MISSING,
    LeftOutRows,
)
from kovqa_core.index.sources.benchmark_files import IMAGE_COLUMNS, BenchmarkRecord

# Columns with a choice each, or one with all of them; the first family of which a row has a column.
_CHOICE_COLUMNS = (tuple("ABCDE"), tuple(f"choice_{letter}" for letter in "abcde"))
_CHOICE_LISTS = ("options", "choices")
LETTERS_ALONE = tuple(CHOICE_LETTERS[:4])  # choices of a question whose text alone says what they stand for
CHOICE_COLUMNS = ("A", "choice_a", *_CHOICE_LISTS)  # of which a layout must have one
# What becomes a part of the example; and names of ours, which mean something else in a table (`split`).
_READ_COLUMNS = frozenset(
    (*itertools.chain(*_CHOICE_COLUMNS), *IMAGE_COLUMNS, "gpt_answer", *COLUMN_ALIASES, *_CHOICE_LISTS)
)
_PLACEHOLDER = re.compile(r"<image(?: \d)?>\s*")  # in questions, where models have a token of their own
_OPTIONS = re.compile(r"(?:^|\s)(?:Options|Choices|선택지|보기|옵션)\s*:\s*", re.IGNORECASE)


@dataclass(frozen=True)
class BenchmarkLayout:
    """What is where in a benchmark's rows.

    Attributes:
        answer: what the column `answer` holds: a choice's letter; its number from 0; what an answer gets points
            for ("criteria"); "reference": there is none, but the column `gpt_answer`.
        ids: names of the id's column.
        question_types: names of the column that questions are grouped by.
        choices_in_question: are the choices a part of the question's text?
    """

    answer: Literal["letter", "number", "criteria", "reference"] = "letter"
    ids: tuple[str, ...] = ("index", "id", "question_id")
    question_types: tuple[str, ...] = ("category",)
    choices_in_question: bool = False

    @property
    def required(self) -> Mapping[str, Sequence[str]]:
        """What a file must have -> names of columns for it."""
        columns: dict[str, Sequence[str]] = {
            "id": self.ids,
            "question": ("question",),
            "answer": ("gpt_answer",) if self.answer == "reference" else ("answer",),
        }
        # VLMEvalKit's copies of K-MMStar have the choices in columns: then they are read from there.
        if self.answer in ("letter", "number") and not self.choices_in_question:
            columns["choices"] = CHOICE_COLUMNS
        if self.answer == "reference":
            columns["description"] = ("caption",)
        return columns


def benchmark_example(
    layout: BenchmarkLayout, record: BenchmarkRecord, left_out: LeftOutRows
) -> Example | None:
    """The example of a row; None if it is left out."""
    cells, place = record.cells, record.place
    question = _PLACEHOLDER.sub("", record_text(cells, "question", place)).strip()
    if not question:
        left_out.add(QUESTION_MISSING, place)
        return None
    choices: tuple[str, ...] = ()
    answers, judged = dict[str, float](), _judged_columns(layout, cells, place)
    if not all(judged.values()):
        left_out.add(ANNOTATION_MISSING, place)
        return None
    if not judged:
        found = _find_choices(layout, question, record, left_out)
        if found is None:
            return None
        question, choices, chosen = found
        answers = {choices[chosen]: 1.0}
    id_column, type_column = (_present(names, cells) for names in (layout.ids, layout.question_types))
    used = {id_column, type_column, *_READ_COLUMNS}
    return Example(
        record_text(cells, id_column, place).strip(),
        record.image,
        question,
        answers,
        record_text(cells, type_column, place).strip() if type_column else "",
        choices=choices,
        context=_hint(cells, place),
        columns={**judged, **{name: json_value(cell) for name, cell in cells.items() if name not in used}},
    )


def _judged_columns(layout: BenchmarkLayout, cells: JsonRecord, place: str) -> dict[str, str]:
    """What a judge goes by; {} of a set that is scored without one."""
    if layout.answer == "criteria":
        return {CRITERIA_COLUMN: record_text(cells, "answer", place).strip()}
    if layout.answer != "reference":
        return {}
    captions = cells["caption"] if isinstance(cells["caption"], list) else [cells["caption"]]
    return {
        REFERENCE_COLUMN: record_text(cells, "gpt_answer", place).strip(),
        DESCRIPTION_COLUMN: "\n".join(record_text({"caption": each}, "caption", place) for each in captions),
    }


def _find_choices(
    layout: BenchmarkLayout, question: str, record: BenchmarkRecord, left_out: LeftOutRows
) -> tuple[str, tuple[str, ...], int] | None:
    """The question without its choices, these, and the number of the right one; None if the row is left out."""
    answer = record_text(record.cells, "answer", record.place).strip()
    try:
        question, choices = _question_and_choices(layout, question, record.cells, answer, record.place)
    except DataError as error:
        left_out.add(CHOICES_UNUSABLE, error.message)
        return None
    chosen = _chosen(choices, answer, is_number=layout.answer == "number")
    if chosen is not None:
        return question, choices, chosen
    if answer:
        left_out.add(ANSWER_NO_CHOICE, f"{record.place}: {answer}")
    else:
        left_out.add(ANSWER_EMPTY, record.place)
    return None


def _present(names: Sequence[str], cells: JsonRecord) -> str:
    return next((name for name in names if name in cells), "")


def _hint(cells: JsonRecord, place: str) -> str:
    hint = record_text(cells, "hint", place).strip() if "hint" in cells else ""
    return "" if hint.lower() in MISSING_WORDS else hint


def _question_and_choices(
    layout: BenchmarkLayout, question: str, cells: JsonRecord, answer: str, place: str
) -> tuple[str, tuple[str, ...]]:
    """The question without its choices, and these; raises as `parse_choices`."""
    for names in _CHOICE_COLUMNS:
        if names[0] in cells:
            return question, parse_choices(_column_choices(names, cells, answer, place), place)
    for name in _CHOICE_LISTS:
        if name in cells:
            return question, parse_choices(cells[name], place)
    return split_choices(question) if layout.choices_in_question else (question, ())


def _column_choices(names: Sequence[str], cells: JsonRecord, answer: str, place: str) -> list[str]:
    """The choices of columns; those at the end that are empty, or `nan` as pandas writes it, are none.

    Other words that may say that nothing is known (`None`, `N/A`) are choices as people write them.
    """
    texts = [record_text(cells, name, place).strip() for name in names if name in cells]
    # The right answer is a choice whatever it looks like.
    fewest = CHOICE_LETTERS.find(answer.upper()) + 1 if len(answer) == 1 else 0
    while len(texts) > fewest and texts[-1].lower() in ("", "nan"):
        texts.pop()
    return texts


def split_choices(question: str) -> tuple[str, tuple[str, ...]]:
    """A question without the choices behind it, and these; with them and their letters where they cannot be told apart.

    MMStar writes `… Options: A: 빨강, B: 파랑, C: 초록, D: 노랑`; some of its questions `(A) …` on lines of their own.
    """
    marks = [*_OPTIONS.finditer(question)]
    if marks:
        rest = question[marks[-1].end() :]
        choices, start = list[str](), 0
        for number in range(len(CHOICE_LETTERS)):
            # The first letter stands at the beginning, each other one behind a comma, a blank or a line's end.
            letter = rf"\(?{CHOICE_LETTERS[number]}(?:\)\s*|[:.]\s+)"
            mark = re.compile(rf"[\s,;]{letter}" if number else letter)
            match = mark.search(rest, start) if number else mark.match(rest)
            if match is None:
                break
            if number:
                choices.append(rest[start : match.start()])
            start = match.end()
        texts = tuple(text.strip().rstrip(",;").strip() for text in (*choices, rest[start:]))
        stem = question[: marks[-1].start()].strip()
        if stem and len(texts) > 1 and len(set(texts)) == len(texts) and "" not in texts:
            return stem, texts
    return question, LETTERS_ALONE


def _chosen(choices: Sequence[str], answer: str, *, is_number: bool) -> int | None:
    """The number of the right choice; None: there is none."""
    if is_number:
        number = int(answer) if answer.isdecimal() else -1
    elif len(answer) == 1 and answer.upper() in CHOICE_LETTERS:
        number = CHOICE_LETTERS.index(answer.upper())
    else:
        found = find_choice(choices, answer)
        number = -1 if found is None else found
    return number if 0 <= number < len(choices) else None
