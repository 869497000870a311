"""Which columns of a user's table are ours, and what their cells say: one reading for every command.

`kovqa index table`, `kovqa predict --input` and `kovqa caption --input` read a table through this module, so
that its ids, texts and columns are the same in an index and in predictions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.choice_columns import (
    counts_from_zero,
    filled_cells,
    find_choice_columns,
    may_hold_choices,
    named_choice,
    unknown_by_wording,
)
from kovqa_core.data.decoding import find_choice, parse_choices
from kovqa_core.data.json_values import JsonRecord, NumberText
from kovqa_core.data.tables import COLUMN_ALIASES, has_header, read_table, record_text
from kovqa_core.data.tables.embedded_images import ImageNames, SaveImage
from kovqa_core.data.tables.json_rows import number_rows
from kovqa_core.data.tables.nested_columns import NestedColumns
from kovqa_core.data.tables.webdataset import KEY_COLUMN, PROBLEM_COLUMN
from kovqa_core.errors import DataError, unknown_name_error
from kovqa_core.files import to_nfc
from kovqa_core.messages import Message, message, shell_quote

ColumnNames = Mapping[str, Sequence[str]]  # our name of a column -> the names it is known by
_MAX_COMBINATIONS = 1000  # of columns that are kept in memory: rows of JSON may all have other keys
_MAX_INT_DIGITS = 4300  # Python turns no longer text into a number


def known_columns(columns: Mapping[str, str]) -> ColumnNames:
    """Names that our columns are known by in one table.

    Args:
        columns: our name -> the table's, where the user gives it; it replaces ours, for both in one table
            would be two columns for one thing.

    Raises:
        SettingsError: a key is not a column of ours.
    """
    for ours in columns:
        if ours not in COLUMN_ALIASES:
            raise unknown_name_error(
                message("index.unknown-column", "unknown column '{column}'", column=ours),
                ours,
                COLUMN_ALIASES,
                message("index.unknown-column.hint", "for example --column question=질문"),
            )
    return {
        # NFC, as a table's columns are: a shell may hand a name on as macOS spells it.
        ours: (to_nfc(columns[ours]),) if ours in columns else names
        for ours, names in COLUMN_ALIASES.items()
    }


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One row of a table, by our columns.

    Attributes:
        line: number of the line it begins in.
        own_id: its id where the table has none.
        place: FILE:LINE, for messages.
        record: all its cells, by the table's own names.
        names: our name of a column -> the table's, for those it has.
        problem: why it is left out (a sample of a webdataset without image); "" of nearly all.
        may_offer_choices: has it columns that could hold choices? Told by their names, once for all rows alike.
    """

    line: int
    own_id: str
    place: str
    record: JsonRecord
    names: Mapping[str, str]
    problem: str = ""
    may_offer_choices: bool = True

    @property
    def id(self) -> str:
        """Its id; where the table has none, the line's number (see `number_rows`)."""
        return self.text("id") or self.own_id

    def text(self, ours: str) -> str:
        """A cell as one NFC text, "" where there is none; raises as `one_text`."""
        name = self.names.get(ours)
        return "" if name is None else one_text(self.record[name], ours, self.place)

    def texts(self, ours: str) -> list[str]:
        """A cell as texts: JSON and Parquet may have a list of them, or of VQA's annotators; raises as `one_text`."""
        return [one_text(each, ours, self.place) for each in self._cells(ours)]

    def raw_texts(self, ours: str) -> list[str]:
        """As `texts`, but letter by letter as the table has them."""
        return [
            each if isinstance(each, str) else one_text(each, ours, self.place) for each in self._cells(ours)
        ]

    def _cells(self, ours: str) -> list[object]:
        """The values of a cell: those of a list, of VQA's annotators their answers; else the cell itself."""
        cell = self.cell(ours)
        if not isinstance(cell, list):
            return [cell]
        # {"answer": …, "answer_confidence": …, "answer_id": …} of VQAv2, VizWiz and their copies at Hugging Face.
        return [each["answer"] if isinstance(each, dict) and "answer" in each else each for each in cell]

    def cell(self, ours: str) -> object:
        """A cell as the table has it; None where there is none."""
        return self.record[self.names[ours]] if ours in self.names else None

    @property
    def context(self) -> str:
        """What is to be read before the question: the columns context and hint, each on lines of its own."""
        present = [ours for ours in ("context", "hint") if ours in self.names]
        return "\n".join(text for ours in present for text in self.texts(ours) if text)

    @property
    def choice_columns(self) -> list[str]:
        """The table's names of the columns that have one choice each; none where another column has all of them."""
        cell = self.cell("choices")
        taken = self.names.values()
        return find_choice_columns(self.record, taken) if is_empty(cell) or cell in ([], {}) else []

    def choices(self, *, required: bool = False) -> tuple[str, ...]:
        """The answers that the question offers, () where it offers none.

        Args:
            required: does it have to offer some?

        Raises:
            DataError: see `parse_choices`.
        """
        if not (required or self.may_offer_choices):
            return ()
        cell = self.cell("choices")
        if columns := self.choice_columns:
            cell = [one_text(cell, "choices", self.place) for cell in filled_cells(self.record, columns)]
        if not required and (is_empty(cell) or cell in ([], {})):
            return ()
        return parse_choices(cell, self._place_of_id)

    def unknown(self, choices: Sequence[str]) -> str:
        """Of the choices, the one that means that nobody can know: by the column unknown, else by its wording.

        Raises:
            DataError: the column names none of them.
        """
        if "unknown" not in self.names:
            return unknown_by_wording(choices)
        cell = self.text("unknown")
        if not cell or not choices:
            return ""
        number = named_choice(choices, cell)
        if number is None:
            raise _no_choice_error(self._place_of_id, "unknown", cell, choices)
        return choices[number]

    def chosen_answers(self, choices: Sequence[str]) -> list[str]:
        """The true answers of a question with choices: texts of choices, also where letters or numbers name them.

        What names no choice stays as it is, letter by letter.

        Raises:
            DataError: the label is not the number of a choice.
        """
        if self.has_label:
            label = self.text("label").removesuffix(".0")  # as pandas writes it, in a column with gaps
            if not (label.isascii() and label.isdigit() and int(label[:9]) < len(choices)):
                raise _no_choice_error(self._place_of_id, "label", label, choices)
            return [choices[int(label)]]
        answers = self.raw_texts("answer")
        # One that is a choice's text stays as it is written: it may differ in spaces or case.
        named = [
            None if find_choice(choices, each) is not None else named_choice(choices, each)
            for each in answers
        ]
        return [each if n is None else choices[n] for each, n in zip(answers, named, strict=True)]

    def require_counted_from_one(self, choices: Sequence[str]) -> None:
        """See that no answer is the number 0 of a choice: all numbers of its table would name other choices.

        Raises:
            DataError: one is.
        """
        if any(counts_from_zero(choices, answer) for answer in self.raw_texts("answer")):
            raise DataError(
                message("index.answer-zero", "{place}: answer 0: choices are counted from 1", place=self.place),
                message(
                    "index.answer-zero.hint", "numbers that count from 0: --column label={column}",
                    column=shell_quote(self.names.get("answer", "answer")),
                ),
            )  # fmt: skip

    @property
    def has_label(self) -> bool:
        """Does the column label, a number that counts from 0, say which choice is true? An answer goes before it."""
        return not is_empty(self.cell("label")) and is_empty(self.cell("answer"))

    @property
    def _place_of_id(self) -> str:
        return f"{self.place}, id {self.id}"

    def other_columns(self, ours: Sequence[str], *, dropped: Sequence[str] = ()) -> dict[str, object]:
        """The cells that are none of these columns of ours, as JSON values, in the table's order.

        Args:
            ours: our names of columns.
            dropped: the table's names of columns to leave out as well.
        """
        used = {self.names[name] for name in ours if name in self.names}.union(dropped)
        return {
            name: cell if type(cell) is str else json_value(cell)  # mostly without a call
            for name, cell in self.record.items()
            if name not in used
        }


def read_table_records(
    file: Path,
    known: ColumnNames,
    required: ColumnNames,
    columns: Mapping[str, str],
    *,
    save_image: SaveImage | None = None,
    image_names: ImageNames | None = None,
    image_folder: Path | None = None,
) -> Iterator[TableRecord]:
    """Rows of a table.

    Args:
        file: any format of `read_table`.
        known: see `known_columns`.
        required: our name of a column -> names of which the table must have one.
        columns: names that the user gave: a header must have them; a record of JSON may lack those it has no
            value for.
        save_image, image_names, image_folder: see `read_table`.

    Raises:
        DataError: a table that cannot be read, or lacks a column: the hint says how to name it.
    """
    if columns and has_header(file):
        required = {**required, **{ours: known[ours] for ours in columns}}
    rows = read_table(
        file, required, _name_column_hint, save_image=save_image, image_names=image_names, image_folder=image_folder,
        nested=_nested_columns(known),
    )  # fmt: skip
    present: dict[tuple[str, ...], tuple[dict[str, str], dict[str, list[str]], bool]] = {}
    file_name = str(file)
    for line, own_id, record in number_rows(rows):
        problem, place = "", line
        if KEY_COLUMN in record:  # a sample of a webdataset, which people know by its key
            own_id = place = record.pop(KEY_COLUMN)
        if PROBLEM_COLUMN in record:
            problem = record.pop(PROBLEM_COLUMN)
        # The rows of a table have the same columns, or a few combinations of them.
        columns_here = tuple(record)
        if columns_here not in present:
            if len(present) >= _MAX_COMBINATIONS:
                present.clear()
            present[columns_here] = (
                *_present_columns(columns_here, known), may_hold_choices(columns_here, known["choices"])
            )  # fmt: skip
        names, several, may_offer_choices = present[columns_here]
        if several:
            names = names | {ours: _column_name(record, theirs) for ours, theirs in several.items()}
        yield TableRecord(line, own_id, f"{file_name}:{place}", record, names, problem, may_offer_choices)


def _nested_columns(known: ColumnNames) -> NestedColumns:
    """The columns that a user names with dots."""
    names = [name for names in known.values() for name in names if "." in name]
    questions = [name for ours in ("question", "caption") for name in known[ours] if "." in name]
    return NestedColumns(names, questions, known["id"])


def _present_columns(
    columns: Sequence[str], known: ColumnNames
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Our columns that a row has -> the name under which it has each; and those that it has under several."""
    present = {ours: [name for name in names if name in columns] for ours, names in known.items()}
    return (
        {ours: names[0] for ours, names in present.items() if len(names) == 1},
        {ours: names for ours, names in present.items() if len(names) > 1},
    )


def _column_name(record: JsonRecord, names: Sequence[str]) -> str:
    """Of the names under which a record has a column, the first with a value, else the first."""
    return next((name for name in names if not is_empty(record[name])), names[0])


def is_empty(cell: object) -> bool:
    """Does a cell say nothing?"""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _no_choice_error(place: str, column: str, cell: str, choices: Sequence[str]) -> DataError:
    return DataError(
        message(
            "index.names-no-choice", "{place}: {column} '{cell}' is none of the choices: {choices}",
            place=place, column=column, cell=cell, choices=", ".join(choices),
        ),
        message("index.names-no-choice.hint", "write the text of a choice"),
    )  # fmt: skip


def _name_column_hint(columns: Mapping[str, str]) -> Message:
    pairs = (shell_quote(f"{ours}={theirs}") for ours, theirs in columns.items())
    return message("index.name-column.hint", "name it: --column {column}", column=" --column ".join(pairs))


def one_text(value: object, ours: str, place: str) -> str:
    """A cell as one NFC text.

    Args:
        value: the cell.
        ours: our name of its column.
        place: FILE:LINE, for the error.

    Raises:
        DataError: it is a list or an object.
    """
    # Most cells are texts: they are spared what only others need.
    text = to_nfc(value) if isinstance(value, str) else record_text({ours: value}, ours, place)
    # Not stripped here: `soft_labels` normalises answers, and a file name may begin or end with a space.
    return text if ours in ("answer", "caption", "image") else text.strip()


def json_value(cell: object) -> object:
    """A cell as JSON has it: numbers that were read as the text they are written with become numbers again."""
    if cell is None or type(cell) is str:  # the usual case; NumberText is a str, too
        return cell
    if isinstance(cell, NumberText):
        return _json_number(cell)
    if isinstance(cell, list | tuple):
        return [json_value(each) for each in cell]
    if isinstance(cell, dict):
        return {str(name): json_value(each) for name, each in cell.items()}
    if isinstance(cell, float) and not math.isfinite(cell):
        return None  # JSON has none
    # What only other formats have, such as a date of a Parquet file, is handed on as text.
    return cell if isinstance(cell, str | bool | int | float) else str(cell)


def _json_number(text: str) -> int | float | str:
    if len(text) > _MAX_INT_DIGITS:
        return str(text)
    number = float(text) if any(mark in text for mark in ".eE") else int(text)
    return number if math.isfinite(number) else str(text)
