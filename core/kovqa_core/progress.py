"""How far a piece of work is: the one form in which the engine reports it and the command line shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is.

    Attributes:
        stage: what is being done, in words for people ("answering", "downloading train2014.zip").
        done: units done so far; 0 where nothing can be counted.
        total: units in all; None where nobody knows.
        unit: what is counted ("rows", "images"); "bytes" is shown as kB, MB, GB.
        fraction: of the work done, in 0…1, where it is known otherwise than by `done / total`.
        is_note: the stage is a line to be kept in sight, also where a bar goes on below it.
    """

    stage: str
    done: int = 0
    total: int | None = None
    unit: str = "rows"
    fraction: float | None = None
    is_note: bool = False

    @property
    def fraction_done(self) -> float | None:
        """Of the work done, in 0…1; None where nobody knows."""
        if self.fraction is not None or not self.total:
            return self.fraction
        return self.done / self.total


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """For callers that show nothing."""
