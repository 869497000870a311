"""Files as DuckDB reads them: under a name without wildcards, or written anew as plain JSON lines."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

MAX_LINE_BYTES = 64 << 20  # of a line; DuckDB's own limit is 16 MB
_numbers = itertools.count()


def link_lines(path: Path, folder: Path) -> Path:
    """A file under a name that DuckDB does not take for a pattern: `[1].jsonl` would be another file.

    Raises:
        OSError: this system has no links.
    """
    link = folder / f"lines-{next(_numbers)}.jsonl"
    link.symlink_to(path.resolve())
    return link


def write_lines(rows: Iterable[Mapping[str, object]], folder: Path) -> Path:
    """Rows as JSON lines that DuckDB reads; half characters, which UTF-8 does not have, become question marks."""
    path = folder / f"lines-{next(_numbers)}.jsonl"
    with path.open("wb") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    return path
