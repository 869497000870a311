"""Tab in four shells: typer's completion, without what it loads for the descriptions and takes apart in bash.

typer renders each description with rich, which takes longer than all else of a Tab; and bash takes `--set optim.lr=1`
apart at the `=` (and at a colon), so that the words it hands over are not those that were typed.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from typing import Any

_BROKEN_AT = ("=", ":")  # of bash's COMP_WORDBREAKS, what options of ours contain


def suit_shells(environment: MutableMapping[str, str]) -> None:
    """Put our own classes into typer's table of shells, and whole words into bash's variables.

    Args:
        environment: os.environ, by which a shell asks.
    """
    from typer import _completion_classes as shells

    vars(shells)["_sanitize_help_text"] = one_line_help
    cut = 0
    if "COMP_WORDS" in environment and "COMP_CWORD" in environment:
        separator = "\n" if "\n" in environment["COMP_WORDS"] else " "  # typer's script joins them by lines
        words = environment["COMP_WORDS"].split(separator)
        words, current, cut = join_broken_words(words, int(environment["COMP_CWORD"]))
        environment["COMP_WORDS"], environment["COMP_CWORD"] = separator.join(words), str(current)

    class WholeWordBash(shells.BashComplete):
        """bash replaces only what stands behind the last `=` or colon."""

        def format_completion(self, item: Any) -> str:
            return str(item.value)[cut:]

    shells.add_completion_class(WholeWordBash, "bash")  # type: ignore[attr-defined]


def join_broken_words(words: Sequence[str], current: int) -> tuple[list[str], int, int]:
    """Words as they were typed, from those that bash made of them.

    Args:
        words: `--set`, `data.augment`, `=`, `ra`.
        current: which of them the cursor is in.

    Returns:
        The whole words, which of them the cursor is in, and how many letters of that bash will not replace.
    """
    joined: list[str] = []
    place, kept = current, 0
    for number, word in enumerate(words[: current + 1]):
        glued = bool(joined) and (word in _BROKEN_AT or joined[-1].endswith(_BROKEN_AT))
        if glued and number == current:
            whole = joined[-1] + (word if word in _BROKEN_AT else "")
            # typer itself takes `--set=` off.
            option = whole.index("=") + 1 if whole.startswith("-") and "=" in whole else 0
            kept = len(whole) - option
        joined = [*joined[:-1], joined[-1] + word] if glued else [*joined, word]
        place = len(joined) - 1
    return [*joined, *words[current + 1 :]], place, kept


def one_line_help(text: str) -> str:
    """A description as shells take it: one line, without what zsh would read as its own."""
    return re.sub(r"[\s()\[\]]+", " ", text).strip()
