"""Terms of use: shown and accepted once per source, with the date. Source: docs/sources/datasets.md, D5."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kovqa_core.download.table import AssetSource
from kovqa_core.errors import SettingsError
from kovqa_core.files import write_json
from kovqa_core.paths import kovqa_home


def acceptances_file() -> Path:
    """Where acceptances are written down."""
    return kovqa_home() / "licences.json"


def _read_acceptances() -> dict[str, Any]:
    try:
        return dict(json.loads(acceptances_file().read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def require_licence(source: AssetSource, said: bool, ask: Callable[[str], bool] | None = None) -> None:
    """See that a source's terms are accepted, now or earlier; new terms are asked for again.

    Args:
        said: the user said so beforehand.
        ask: shows the terms and asks; None where nobody can answer.

    Raises:
        SettingsError: they are not; shows the terms.
    """
    before = _read_acceptances()
    if before.get(source.name, {}).get("licence") == source.licence:
        return
    terms = f"{source.title}: {source.licence} (for: {source.who}; {source.page})"
    if not (said or (ask and ask(terms))):
        raise SettingsError(
            f"the terms of use are not accepted. {terms}", "read them, then add --accept-licence"
        )
    entry = {"licence": source.licence, "page": source.page, "accepted": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    write_json(acceptances_file(), {**before, source.name: entry})
