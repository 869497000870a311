"""Where profiles, recipes and assets lie. Lists names; parses nothing, so completion can use it."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE_FOLDER = Path(__file__).resolve().parent


def kovqa_home() -> Path:
    """The user's own kovqa folder: profiles, recipes, assets."""
    return Path(os.environ.get("KOVQA_HOME") or Path.home() / ".kovqa").expanduser()


def settings_files(kind: str) -> dict[str, Path]:
    """Names of "profiles" or "recipes" with their files.

    Looked for in the user's folder, in the package, then in the source checkout around it; never
    in the folder a command was started from.
    """
    folders = [kovqa_home() / kind, _PACKAGE_FOLDER / kind, _PACKAGE_FOLDER.parent.parent / kind]
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))
