"""The log of a run, as the rows that its file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kovqa_core.runs.folder import LOG_FILE


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All rows of a run's log; no row may be torn."""
    path = folder / LOG_FILE
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
