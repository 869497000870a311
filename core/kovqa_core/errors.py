"""What can go wrong, and the exit code each kind of failure ends with.

Every error a user can cause is one of these: a message (what and where) and a hint (what to
do next). The command line prints both and exits with `exit_code`; anything else is a bug
of ours and keeps its traceback.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from kovqa_core.messages import Message, message

_MAX_NAMED_IDS = 10  # ids in a message
_MAX_LOOKED_AT = 1000  # names of a folder that are compared with one that is not there


class KovqaError(Exception):
    """A failure with one clear message.

    It keeps message and hint, with their keys and fields, when a process of a pool or a launcher hands
    it to another (an exception is pickled as its `args`, here the message, and its attributes).

    Args:
        message: what went wrong and where (file and line, or id): a `Message`.
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
    """A setting or an option makes no sense: a key, a name, a value, a combination."""

    exit_code = 2


class DataError(KovqaError):
    """Data cannot be used: an index, an image, a table."""

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
    error_class.__name__: error_class
    for error_class in (
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


def unknown_name_error(
    problem: Message, name: str, known_names: Iterable[str], hint: str = ""
) -> SettingsError:
    """The error for a name nobody knows: it lists the nearest known ones, or all of them.

    Args:
        problem: what is wrong, as a whole sentence ("unknown recipe 'kobiet3'").
        name: the unknown name.
        known_names: those that exist.
        hint: what to do next.
    """
    import difflib

    names = sorted(known_names)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        text = did_you_mean(problem, near)
    elif names:
        text = message(
            "errors.known-names", "{problem}; known: {names}", problem=problem, names=", ".join(names)
        )
    else:
        text = message("errors.no-known-names", "{problem}; known: none", problem=problem)
    return SettingsError(text, hint)


def did_you_mean(problem: Message, names: Sequence[str]) -> Message:
    """A problem, and the names (one at least) that may have been meant."""
    return message(
        "errors.did-you-mean", "{problem}; did you mean {names}?", problem=problem, names=name_or_name(names)
    )


def with_near_files(problem: Message, path: Path) -> Message:
    """A problem of a path that is not there, and names beside it that may have been meant."""
    import difflib
    import itertools
    import unicodedata

    try:
        with os.scandir(path.parent) as entries:
            names = [each.name for each in itertools.islice(entries, _MAX_LOOKED_AT) if each.name[:1] != "."]
    except (OSError, ValueError):
        return problem
    # A Mac's names are in letters that come apart: ㅎㅏㄴ.
    whole = {unicodedata.normalize("NFC", name): name for name in sorted(names)}
    near = difflib.get_close_matches(unicodedata.normalize("NFC", path.name), whole, n=2, cutoff=0.7)
    return did_you_mean(problem, [str(path.parent / whole[name]) for name in near]) if near else problem


def name_or_name(names: Sequence[str]) -> str:
    """ "a, b or c", of one name at least."""
    *others, last = names
    if not others:
        return last
    return message("errors.name-or-name", "{names} or {last}", names=", ".join(others), last=last)


def no_names() -> Message:
    """What stands where names would, if there are none."""
    return message("errors.no-names", "none")


def first_names(names: Sequence[str], most: int) -> str:
    """ "a, b, c and 12 more": names, no more of them than `most`."""
    if len(names) <= most:
        return ", ".join(names)
    return message(
        "errors.names-and-more", "{names} and {more:,} more",
        names=", ".join(names[:most]), more=len(names) - most,
    )  # fmt: skip


def list_ids(ids: Sequence[str]) -> Message:
    """ "12 ids: a, b, …": how many, and the first of them by name."""
    if len(ids) == 1:
        return message("errors.one-id", "1 id: {id}", id=ids[0])
    return message("errors.several-ids", "{count} ids: {ids}", count=len(ids), ids=_first_names(ids))


def list_lines(numbers: Sequence[str]) -> Message:
    """ "12 lines: 3, 5, …": how many lines of a file, and the first of them by number."""
    if len(numbers) == 1:
        return message("errors.one-line", "1 line: {line}", line=numbers[0])
    return message(
        "errors.several-lines", "{count} lines: {lines}", count=len(numbers), lines=_first_names(numbers)
    )


def _first_names(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _MAX_NAMED_IDS else ""
    return ", ".join(names[:_MAX_NAMED_IDS]) + more
