"""What a command may do with a damaged file: work, or end with one line that names it; and leave nothing half."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.fuzz.file_kinds import FileKind
from tests.tools.forked_commands import Ended

MAX_SECONDS = 20
MAX_MEMORY = 2 << 30
_MAX_ERROR_CHARS = 5000  # the command line cuts at 4,096, and puts its own words before
# What an interpreter or a library prints of its own: nobody wrote it for the user.
_NOT_FOR_USERS = re.compile(r"Traceback \(most recent call last\)|Exception ignored|Warning: |  File \"")
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LOCKS = ("*.lock", ".lock", ".claim")


def list_files(folder: Path) -> dict[str, tuple[int, ...]]:
    """Each path below a folder, with what tells whether it was changed; links are not followed."""
    return {str(path.relative_to(folder)): _fingerprint(path) for path in _walk(folder)}


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        yield from (Path(place, name) for name in [*folders, *names])


def _fingerprint(path: Path) -> tuple[int, ...]:
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        return (status.st_mode,)
    return status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino


def find_fault(
    kind: FileKind,
    damaged: str,
    ended: Ended,
    before: Mapping[str, tuple[int, ...]],
    after: Mapping[str, tuple[int, ...]],
    folder: Path,
    outputs: tuple[str, ...],
) -> str:
    """What is wrong with the end of a command; "" where nothing is.

    Args:
        kind: of the damaged file.
        damaged: its path from the folder.
        ended: the command.
        before: the files before it (`list_files`).
        after: the files afterwards.
        folder: with `in` and `out`.
        outputs: what the command is to write, from `out` on.
    """
    if ended.timed_out:
        return f"not through after {MAX_SECONDS} s"
    if match := _NOT_FOR_USERS.search(ended.stderr + ended.stdout):
        return f"not for users: {match.group()}"
    if ended.code not in kind.exit_codes:
        return f"exit code {ended.code}"
    if match := _CONTROL.search(ended.stderr):
        return f"control character {match.group()!r}"
    if ended.code not in (0, kind.usual_code) and (
        fault := _error_fault(kind, folder / damaged, ended.stderr)
    ):
        return fault
    changed = sorted(
        name
        for name in before.keys() | after.keys()
        if _is_input(name) and before.get(name) != after.get(name)
    )
    if changed:
        return f"inputs changed: {', '.join(changed[:5])}"
    return _output_fault(kind, ended, before, after, folder, outputs)


def _is_input(name: str) -> bool:
    return name.split("/")[0] == "in"


def _error_fault(kind: FileKind, damaged: Path, stderr: str) -> str:
    # Typer's own checks of an option begin with "Error: ".
    lines = [line for line in stderr.splitlines() if line.startswith(("kovqa: ", "Error: "))]
    if len(lines) != 1:
        return f"{len(lines)} lines of error"
    text = unicodedata.normalize("NFC", lines[0])
    if len(text) > _MAX_ERROR_CHARS:
        return f"an error of {len(text)} characters"
    names = (damaged.name, damaged.stem, *kind.also_named, *_link_target(damaged))
    # A row that is left out, or in one of two files only, is named by its id.
    if not any(name in text for name in names) and not re.search(r"\(first: |\d ids?: ", text):
        return f"the error names none of {', '.join(names)}"
    return ""


def _link_target(path: Path) -> list[str]:
    if not path.is_symlink():
        return []
    target = path.readlink()
    return [str(target) if target.is_absolute() else path.parent.name]


def _output_fault(
    kind: FileKind,
    ended: Ended,
    before: Mapping[str, tuple[int, ...]],
    after: Mapping[str, tuple[int, ...]],
    folder: Path,
    outputs: tuple[str, ...],
) -> str:
    new = [name.removeprefix("out/") for name in after if name.startswith("out/") and name not in before]
    allowed = [*_LOCKS, *kind.leaves]
    if ended.code == 0:
        # An output, what is in it, and the files that belong to it: a tokenizer's card, what predictions are of.
        allowed += [
            pattern for name in outputs for pattern in (name, f"{name}/*", f"{name}.json", f".{name}.json")
        ]
        if missing := [name for name in outputs if f"out/{name}" not in after]:
            return f"exit code 0 without {missing[0]}"
        if fault := _lost_rows(kind, ended, folder):
            return fault
    strays = [name for name in after if "/" not in name and name not in before]
    strays += [name for name in new if not _matches(name, tuple(allowed))]
    if strays:
        return f"stray files: {', '.join(sorted(strays)[:5])}"
    for name in new:
        path = folder / "out" / name
        if path.is_file() and b"Traceback (most recent" in path.read_bytes():
            return f"a traceback in {name}"
    return ""


def _lost_rows(kind: FileKind, ended: Ended, folder: Path) -> str:
    """Rows that are not in the output, without a word about them."""
    paths = [*(folder / "out").glob("*.jsonl"), *(folder / "out").glob("색인/*.jsonl")]
    rows = sum(path.read_bytes().count(b"\n") for path in paths)
    if not kind.rows or not paths or rows >= kind.rows or "left out" in ended.stderr + ended.stdout:
        return ""
    return f"{rows} of {kind.rows} rows, and nothing said"


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(
        fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(Path(name).name, pattern) for pattern in patterns
    )
