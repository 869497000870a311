"""Kinds of questions: which of them are meant, and the groups a data set puts them into."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from kovqa_core.errors import unknown_name_error
from kovqa_core.files import read_json, to_nfc
from kovqa_core.messages import message

ALL_TYPES = "all"  # instead of a kind's name: every row


def choose_question_types(asked: Sequence[str], there: Iterable[str]) -> frozenset[str]:
    """The kinds asked for, of those that are there; every one if none or "all" was asked for.

    Raises:
        SettingsError: a kind that is not there; it names those that are.
    """
    known = frozenset(there)
    if not asked or ALL_TYPES in asked:
        return known
    for name in map(to_nfc, asked):
        if not name or name not in known:
            raise unknown_name_error(
                message("data.unknown-kind", "unknown kind '{name}'", name=name),
                name,
                known - {""},
                message("data.unknown-kind.hint", "or --kind {every}", every=ALL_TYPES),
            )
    return frozenset(map(to_nfc, asked))


def read_type_groups(split: Path) -> dict[str, list[str]]:
    """Group -> its kinds, as the `index.json` beside a split says; none for a table of one's own."""
    about = split.parent / "index.json"
    return read_json(about).get("groups", {}) if about.is_file() else {}
