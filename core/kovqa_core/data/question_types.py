"""Which question types a command is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kovqa_core.errors import unknown_name_error
from kovqa_core.files import to_nfc
from kovqa_core.messages import message

ALL_TYPES = "all"  # in place of a type's name: every row


def choose_question_types(requested: Sequence[str], present: Iterable[str]) -> frozenset[str]:
    """The requested question types; all that are present if none, or "all", was requested.

    Args:
        requested: names, in any Unicode form.
        present: the types of the rows.

    Raises:
        SettingsError: one that no row has; it names those present.
    """
    known_names = frozenset(present)
    if not requested or ALL_TYPES in requested:
        return known_names
    chosen = frozenset(map(to_nfc, requested))
    for name in map(to_nfc, requested):
        if not name or name not in known_names:
            raise unknown_name_error(
                message("data.unknown-kind", "unknown kind '{name}'", name=name),
                name,
                known_names - {""},
                message("data.unknown-kind.hint", "or --kind {every}", every=ALL_TYPES),
            )
    return chosen
