"""Rows of a raw data set that do not make it into an index, by reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

# Reasons that several data sets share. They are keys of `index.json` and of `--json`, so their texts stay:
# also where one says picture, a word that is image everywhere else.
ID_MISSING = "id missing"
QUESTION_MISSING = "question missing"
ANSWER_EMPTY = "answer empty"
ANNOTATION_MISSING = "no annotation"
IMAGE_MISSING = "picture missing"
IMAGE_OUTSIDE = "picture outside the picture folder"
IMAGE_AMBIGUOUS = "several pictures of that name"
IMAGE_UNREADABLE = "picture unreadable"
IMAGE_NOT_NAMED = "no picture named"
# Python itself reads no number of more than 4,300 digits; names of files end at 255 bytes.
MAX_ID_CHARS = 1000
ID_TOO_LONG = f"question id longer than {MAX_ID_CHARS:,} characters"
ROW_TWICE = "question id appears twice"
ROW_TWICE_OTHER_ANSWER = "question id appears twice, with other answers"
SAMPLE_INCOMPLETE = "sample incomplete"
FILE_WITHOUT_ROWS = "file without rows"
CHOICES_UNUSABLE = "choices unusable"
ANSWER_NO_CHOICE = "answer is none of the choices"

# Rows that a class list does not cover: its stated rule, not a fault of the data.
ANSWER_NOT_A_CLASS = "answer is no class"
_RARE_ANSWER = "answer seen fewer than {min_count} times"


def rare_answer(min_count: int) -> str:
    """The reason of rows whose answer is too rare to be a class."""
    return _RARE_ANSWER.format(min_count=min_count)


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
        return self.reason != ANSWER_NOT_A_CLASS and not self.reason.startswith(
            _RARE_ANSWER.partition("{")[0]
        )


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
            rows.append(row.encode("utf-8", "backslashreplace").decode())

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
