"""What can go wrong, and the exit code each kind of failure ends with.

Every error a user can cause is one of these: a message (what and where) and a hint (what to
do next). The command line prints both and leaves with `exit_code`; anything else is a bug
of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

_MAX_NAMED_IDS = 10  # ids in a message


class KovqaError(Exception):
    """A failure with one clear message.

    Args:
        message: what went wrong and where (file and line, or id).
        hint: what to do next; may be empty.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class SettingsError(KovqaError):
    """Something asked for makes no sense: a key, a name, a value, a combination."""

    exit_code = 2


class DataError(KovqaError):
    """Data given cannot be used: an index, a picture, a table."""

    exit_code = 3


class ModelError(KovqaError):
    """A model file or checkpoint cannot be used for this."""

    exit_code = 3


class MachineError(KovqaError):
    """This machine does not fit: GPUs, memory, disk space, a missing launcher."""

    exit_code = 4


class AssetError(KovqaError):
    """A file that must be fetched is not here, or could not be fetched."""

    exit_code = 5


class WorkerError(KovqaError):
    """A worker process failed in a way that is none of the other kinds."""

    exit_code = 6


class LostError(WorkerError):
    """A worker process or its host vanished: no fault of the run, which can go on from its checkpoint."""


class Stopped(KovqaError):
    """Stopped on request, with a complete checkpoint; run again to go on."""

    exit_code = 75


ERROR_CLASSES: dict[str, type[KovqaError]] = {
    kind.__name__: kind
    for kind in (
        SettingsError,
        DataError,
        ModelError,
        MachineError,
        AssetError,
        WorkerError,
        LostError,
        Stopped,
    )
}


def unknown_name_error(what: str, name: str, known: Iterable[str], hint: str = "") -> SettingsError:
    """The error for a name nobody knows: it lists the nearest known ones, or all of them."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    suggestion = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return SettingsError(f"unknown {what} '{name}'; {suggestion}", hint)


def summarise_names(what: str, names: Iterable[str], kind: str = "id") -> str:
    """ "no prediction for 12 ids: a, b, … (10 named)"."""
    names = list(names)
    shown = ", ".join(names[:_MAX_NAMED_IDS]) + (", …" if len(names) > _MAX_NAMED_IDS else "")
    return f"{what} {len(names)} {kind}{'s' if len(names) > 1 else ''}: {shown}"
