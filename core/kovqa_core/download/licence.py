"""Terms of use: shown and accepted once per source, with the date. Source: docs/sources/datasets.md, D5."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.download.table import AssetSource
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import atomic_file, json_text, read_bytes
from kovqa_core.messages import message
from kovqa_core.paths import kovqa_home


def acceptances_file() -> Path:
    """Where acceptances are written down."""
    return kovqa_home() / "licences.json"


def _read_acceptances() -> dict[str, dict[str, str]]:
    """Source -> licence, page, date of acceptance; none where the file is missing or damaged: it is asked again."""
    try:
        return {name: dict(entry) for name, entry in parse_json(read_bytes(acceptances_file())).items()}
    except (DataError, ValueError, TypeError, AttributeError):
        return {}


def require_licence(
    source: AssetSource, *, accepted: bool, confirm: Callable[[str], bool] = lambda terms: False
) -> None:
    """See that a source's terms are accepted, now or earlier; new terms are asked for again.

    Args:
        accepted: the user accepts them beforehand.
        confirm: shows the terms and asks; False where nobody can answer.

    Raises:
        SettingsError: they are not; shows the terms.
    """
    acceptances = _read_acceptances()
    # The text is compared, not a number of its version: changed terms are new terms.
    if acceptances.get(source.name, {}).get("licence") == source.licence:
        return
    terms = message(
        "download.terms",
        "{title}: {licence} (for: {who}; {page})",
        title=source.title,
        licence=source.shown_licence,
        who=source.shown_who,
        page=source.page,
    )
    if not (accepted or confirm(terms)):
        raise SettingsError(
            message("download.terms-not-accepted", "the terms of use are not accepted. {terms}", terms=terms),
            message("download.terms-not-accepted.hint", "read them, then add --accept-licence"),
        )
    date = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    entry = {"licence": source.licence, "page": source.page, "accepted": date}
    # Read again while it is held: another download may accept another source's terms at this moment.
    with atomic_file(acceptances_file()) as stream:
        stream.write(json_text({**_read_acceptances(), source.name: entry}).encode())
