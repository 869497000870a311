"""One thing that `kovqa doctor` looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FindingState = Literal["ok", "none", "warning", "missing"]  # none: not here, and not needed


@dataclass(frozen=True)
class DoctorFinding:
    """One thing looked at: its name, its state, what it is, and what to do about it."""

    name: str
    state: FindingState
    what: str
    do: str = ""
