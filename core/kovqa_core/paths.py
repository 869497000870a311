"""Where profiles, recipes and assets lie. Lists names; parses nothing, so completion can use it."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def home() -> Path:
    """The user's own kovqa folder: profiles, recipes, assets."""
    return Path(os.environ.get("KOVQA_HOME") or Path.home() / ".kovqa").expanduser()


def names(kind: str) -> dict[str, Path]:
    """Names of "profiles" or "recipes" with their files.

    Looked for in the user's folder, in the package, then in the source checkout around it; never
    in the folder a command was started from.
    """
    folders = [home() / kind, _PACKAGE / kind, _PACKAGE.parent.parent / kind]
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))
