"""Rows of a raw data set that do not make it into an index, by reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from kovqa_core.messages import Message, message

# Reasons that several data sets share. They are keys of `index.json` and of `--json`, so their texts stay:
# also where one says picture, a word that is image everywhere else.
ID_MISSING = message("index.reason.id-missing", "id missing")
QUESTION_MISSING = message("index.reason.question-missing", "question missing")
ID_OR_QUESTION_MISSING = message("index.reason.id-or-question-missing", "id or question missing")
CAPTION_MISSING = message("index.reason.no-caption", "no caption")
HALF_CHARACTER = message("index.reason.half-character", "text with half a character")
ANSWER_EMPTY = message("index.reason.answer-empty", "answer empty")
ANNOTATION_MISSING = message("index.reason.no-annotation", "no annotation")
IMAGE_MISSING = message("index.reason.image-missing", "picture missing")
IMAGE_OUTSIDE = message("index.reason.image-outside", "picture outside the picture folder")
IMAGE_AMBIGUOUS = message("index.reason.image-ambiguous", "several pictures of that name")
IMAGE_UNREADABLE = message("index.reason.image-unreadable", "picture unreadable")
IMAGE_NOT_NAMED = message("index.reason.image-not-named", "no picture named")
# Python itself reads no number of more than 4,300 digits; names of files end at 255 bytes.
MAX_ID_CHARS = 1000
ID_TOO_LONG = message(
    "index.reason.id-too-long", "question id longer than {most:,} characters", most=MAX_ID_CHARS
)
ROW_TWICE = message("index.reason.row-twice", "question id appears twice")
ROW_TWICE_OTHER_ANSWER = message(
    "index.reason.row-twice-other-answer", "question id appears twice, with other answers"
)
SAMPLE_INCOMPLETE = message("index.reason.sample-incomplete", "sample incomplete")
FILE_WITHOUT_ROWS = message("index.reason.file-without-rows", "file without rows")
CHOICES_UNUSABLE = message("index.reason.choices-unusable", "choices unusable")
ANSWER_NO_CHOICE = message("index.reason.answer-no-choice", "answer is none of the choices")

# Rows that a class list does not cover: its stated rule, not a fault of the data.
ANSWER_NOT_A_CLASS = message("index.reason.no-class", "answer is no class")
_RARE_ANSWER_START = "answer seen fewer than "


def rare_answer(min_count: int) -> Message:
    """The reason of rows whose answer is too rare to be a class."""
    return message(
        "index.reason.rare-answer", "answer seen fewer than {min_count} times", min_count=min_count
    )


def row_of_image(id: str, image: str, file: Path | None = None) -> Message:
    """A row by its id and its image, and the file that has it."""
    if file is None:
        return message("index.row-of-image", "id {id}: of image {image}", id=id, image=image)
    return message(
        "index.row-of-image-in", "id {id}: of image {image} in {file}", id=id, image=image, file=file
    )


@dataclass(frozen=True)
class LeftOut:
    """The rows left out for one reason.

    Attributes:
        reason: why, as `index.json` says it.
        count: how many.
        first_rows: the first of them, at most `LeftOutRows.MAX_LISTED` ("id 17: 동물/a.jpg").
    """

    reason: str
    count: int
    first_rows: tuple[str, ...]

    @property
    def is_fault(self) -> bool:
        """Is something wrong with the rows? Else a class list does not cover them, as it says."""
        return self.reason != ANSWER_NOT_A_CLASS and not self.reason.startswith(_RARE_ANSWER_START)


@dataclass
class LeftOutRows:
    """Collects the rows left out while a data set is read; all are counted, the first of each reason listed.

    Attributes:
        counts, listed: by reason.
        notes: what else was found that people should know, as `DatasetShard.notes`.
    """

    MAX_LISTED: ClassVar[int] = 20
    counts: Counter[str] = field(default_factory=Counter)
    listed: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, reason: str, row: str) -> None:
        """Count one row, and list it if it is among the first ("id 17: 동물/a.jpg")."""
        self.counts[reason] += 1
        self.list_row(reason, row)

    def list_row(self, reason: str, row: str) -> None:
        """List one row without counting it."""
        rows = self.listed.setdefault(reason, [])
        if len(rows) < self.MAX_LISTED:
            # JSON may hold half a surrogate pair, which no file can.
            whole = row.encode("utf-8", "backslashreplace").decode()
            rows.append(row if row == whole else whole)

    def merge(self, other: LeftOutRows) -> None:
        """Add another shard's rows."""
        self.counts.update(other.counts)
        for reason, rows in other.listed.items():
            for row in rows:
                self.list_row(reason, row)

    def by_reason(self) -> tuple[LeftOut, ...]:
        """The result, in the order the reasons came up."""
        return tuple(
            LeftOut(reason, count, tuple(self.listed.get(reason, ())))
            for reason, count in self.counts.items()
            if count
        )
