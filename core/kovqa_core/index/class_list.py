"""The classes that a user lists for an index, and which of them its rows reach."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.answers import MISSING_WORDS, find_class, normalise_answer, read_answers, tidy_answer
from kovqa_core.errors import DataError
from kovqa_core.files import read_text
from kovqa_core.messages import message

# Beside an answers.txt: what makes its folder an index or a model.
_OWNERS_OF_ANSWERS = ("index.json", "kovqa.json")


@dataclass(frozen=True)
class SomeClasses:
    """Some classes of a list: how many, and the first of them ("" of none)."""

    count: int = 0
    first: str = ""


NO_CLASSES = SomeClasses()


def read_class_list(path: Path) -> list[str]:
    """Read the classes of an index to be, in the order of their labels.

    A list that a model may have been trained on is taken as it stands, blanks included: `answer2label.txt`, and the
    `answers.txt` of an index or a model. Any other has one answer a line, which gets the form that answers of an
    index have: NFC, no blanks around it, single ones inside. Blank lines do not count.

    Args:
        path: the file in UTF-8 (with or without a byte-order mark) or CP949, or the folder of an index or model.

    Raises:
        DataError: it cannot be read, or lists nothing; a class that stands there twice (both lines named).
    """
    file = path / "answers.txt" if path.is_dir() else path
    if any(file.with_name(name).is_file() for name in _OWNERS_OF_ANSWERS):
        return read_answers(file)
    lines = read_text(file).splitlines()
    if next(filter(str.strip, lines), "").startswith("{"):
        return read_answers(file)
    line_of: dict[str, int] = {}
    for number, answer in enumerate(map(tidy_answer, lines), 1):
        if answer and line_of.setdefault(answer, number) != number:
            raise DataError(
                message(
                    "index.class-twice", "{file}:{line}: '{answer}' is already in line {first}",
                    file=file, line=number, answer=answer, first=line_of[answer],
                ),
                message("index.class-twice.hint", "remove one of the two lines; blanks around an answer do not count"),
            )  # fmt: skip
    if not line_of:
        raise DataError(
            message("index.no-listed-class", "{file} lists no answers", file=file),
            message("index.no-listed-class.hint", "write one answer per line"),
        )
    return list(line_of)


def unreachable_classes(classes: Sequence[str], label_of: Mapping[str, int]) -> list[str]:
    """The classes that no answer of an index, which is tidy, is ever found to be (" 개", where 개 is a class too).

    Args:
        classes: in the order of their labels.
        label_of: what `number_classes` returns for them.
    """
    return [
        answer
        for label, answer in enumerate(classes)
        if not answer.strip()
        or (answer != tidy_answer(answer) and label_of[normalise_answer(answer)] != label)
    ]


def classes_without_rows(
    classes: Sequence[str], label_of: Mapping[str, int], answer_sets: Iterable[Iterable[str]]
) -> list[str]:
    """The classes that an answer could be and none is.

    Args:
        classes, label_of: see `unreachable_classes`.
        answer_sets: the answers of the training rows; those of many rows may stand there once.
    """
    used = {find_class(label_of, answer) for answers in answer_sets for answer in answers}
    unreachable = set(unreachable_classes(classes, label_of))
    return [answer for label, answer in enumerate(classes) if label not in used and answer not in unreachable]


def first_of_classes(classes: Sequence[str]) -> SomeClasses:
    """Their number and the first of them."""
    return SomeClasses(len(classes), classes[0] if classes else "")


# Texts that may be answers: a table's text stays what it is, but a class of this name is said.
_EMPTY_LOOKING = MISSING_WORDS | {"nil", "nat", "-"}


def empty_looking_classes(classes: Sequence[str], counts: Mapping[str, int]) -> dict[str, int]:
    """Classes that programs write where there is no answer, and how many training rows have them.

    Args:
        classes: as they are written.
        counts: rows by normal form.
    """
    forms = ((answer, normalise_answer(answer)) for answer in classes)
    return {answer: counts[form] for answer, form in forms if form in _EMPTY_LOOKING}
