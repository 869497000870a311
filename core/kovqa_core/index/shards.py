"""What a raw data set is read in: pieces that give rows, and the list of rows left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from kovqa_core.data.example import Example


@dataclass
class LeftOutRows:
    """Rows that did not make it into the index, by reason; the first of each are listed."""

    SHOWN: ClassVar[int] = 20
    counts: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, row: str) -> None:
        """Note one row ("id 17: 동물/a.jpg")."""
        self.counts[reason] += 1
        self.show(reason, row)

    def show(self, reason: str, row: str) -> None:
        """List one row without counting it."""
        if len(self.shown.setdefault(reason, [])) < self.SHOWN:
            self.shown[reason].append(row.encode("utf-8", "backslashreplace").decode())  # half a character

    def join(self, other: LeftOutRows) -> None:
        """Add another piece's rows."""
        self.counts.update(other.counts)
        for reason, rows in other.shown.items():
            for row in rows:
                self.show(reason, row)


SplitExamples = Iterator[tuple[str, Example]]  # (split, example)


@dataclass(frozen=True)
class DatasetShard:
    """A part of a raw data set that can be read beside the others, in a process of its own.

    Attributes:
        read: gives the part's rows and notes those left out; must survive pickling, so it is a
            function of a module or a `functools.partial` of one.
        size: bytes to read, which tells whether several processes pay.
    """

    read: Callable[[LeftOutRows], SplitExamples]
    size: int = 0


@dataclass(frozen=True)
class SourceOptions:
    """What a user may say about a raw data set beside where it lies.

    Attributes:
        columns: our name of a column -> the table's (`table`).
        language: "ko" or "en", where the set holds both (`nia`).
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    language: str = "ko"
