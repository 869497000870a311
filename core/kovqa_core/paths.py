"""Where profiles, recipes and assets are. Lists names and parses nothing, so that completion can use it."""

from __future__ import annotations

import os
import re
from pathlib import Path

_PACKAGE_FOLDER = Path(__file__).resolve().parent


def kovqa_home() -> Path:
    """The user's own kovqa folder: profiles, recipes, assets."""
    named = os.environ.get("KOVQA_HOME")
    try:
        return Path(named).expanduser() if named else Path.home() / ".kovqa"
    except RuntimeError:  # a user without a home: a container run with a number that no passwd file has
        return Path(named or "/nonexistent/.kovqa")


def settings_files(kind: str) -> dict[str, Path]:
    """Names of "profiles" or "recipes" with their files.

    The user's folder comes first, then the installed package, then the source checkout around it. The
    folder a command was started from is never searched: a profile names commands that are run.
    """
    folders = [kovqa_home() / kind, _PACKAGE_FOLDER / kind, _PACKAGE_FOLDER.parent.parent / kind]
    files: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            files.setdefault(path.stem, path)
    return dict(sorted(files.items()))


def relative_path(path: Path, folder: Path) -> str:
    """A path from a folder on, with `/` on every system; absolute where no path leads there (another Windows drive)."""
    try:
        return os.path.relpath(path, folder).replace(os.sep, "/")
    except ValueError:
        return path.absolute().as_posix()


def cache_home() -> Path:
    """The user's folder for what can be made again: XDG_CACHE_HOME, else ~/.cache."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG Base Directory Specification: a path that is not absolute is to be ignored.
    if os.path.isabs(named):  # noqa: PTH117
        return Path(named)
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        return Path("/nonexistent/.cache")


def without_home(text: str) -> str:
    """A text that others may read: ~ in the place of the user's home folder."""
    try:
        home = str(Path.home())
    except RuntimeError:
        return text
    # Not of /home/kim in /home/kimchi.
    return re.sub(rf"{re.escape(home)}(?![^/\s'\",:;)])", "~", text) if len(home) > 1 else text
