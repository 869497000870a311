"""The lines of code blocks that a reader types, and the marks that say what a test runs in their place.

A block without a language, or of `sh`, `console`, `ipython` or `python`, is typed; `text` is what one sees.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.docs.pages import PAGES, PAIRS, ROOT, sections

MARKS = Path(__file__).with_name("block_marks.yaml")
_TYPED = ("", "sh", "console", "ipython", "python")
# Pages whose blocks are run: a Korean page has those of its English twin.
RUN_PAGES = [page for page in PAGES if page not in PAIRS.values()]


@dataclass(frozen=True)
class TypedLine:
    """One command of a block, or a whole block of Python.

    Args:
        page: its path in the repository.
        section: the heading of level 2 that it stands below: what is tried in one folder.
        heading: the nearest heading.
        text: as it is typed, without comment; lines that end in a backslash are one.
        language: of the block.
        expected: what the page shows as the block's output, on the last line of a block.
    """

    page: str
    section: str
    heading: str
    text: str
    language: str
    expected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mark:
    """What a test runs in place of lines, and why.

    Args:
        page: path of the page.
        section: a heading; "": all of the page.
        of: how the lines begin; "": all of the section.
        reason: why they are not run as they stand.
        replace: text -> text in these lines.
        add: words at their end.
        by: the test that runs them in another way; with neither this nor a replacement they are not run.
        until: it runs until it has said this, then Ctrl-C.
    """

    page: str
    section: str
    of: str
    reason: str
    replace: dict[str, str]
    add: str
    by: str
    until: str

    def is_for(self, line: TypedLine) -> bool:
        """Does it mark this line?"""
        return (
            line.page == self.page
            and self.section in ("", line.section, line.heading)
            and line.text.removeprefix("!").startswith(self.of)
        )

    @property
    def is_run(self) -> bool:
        return bool(self.replace or self.add or self.until)


def typed_lines(page: Path) -> list[TypedLine]:
    """All that a page tells its reader to type, in order."""
    found: list[TypedLine] = []
    top = ""
    for section in sections(page):
        if section.level <= 2:
            top = section.heading
        blocks = section.blocks()
        for number, (language, content) in enumerate(blocks):
            if language not in _TYPED:
                continue
            shown = blocks[number + 1] if number + 1 < len(blocks) else ("", "")
            texts, outputs = _typed_texts(language, content)
            if shown[0] == "text":
                outputs = shown[1].splitlines()
            for text in texts:
                expected = tuple(outputs) if text == texts[-1] else ()
                place = (page.relative_to(ROOT).as_posix(), top, section.heading)
                found.append(TypedLine(*place, text, language, expected))
    return found


def _typed_texts(language: str, content: str) -> tuple[list[str], list[str]]:
    """The commands of a block, and what a session in a terminal shows as their output."""
    if language == "python":
        return [content], []
    lines = re.sub(r"\\\n\s*", "", content).splitlines()
    if language == "console":
        typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return typed, [line for line in lines if not line.startswith("$ ")]
    typed = [re.sub(r"(^|\s+)# .*$", "", line).strip() for line in lines]
    return [line for line in typed if line], []


@functools.cache
def all_lines() -> tuple[TypedLine, ...]:
    """Of every page that is run."""
    return tuple(line for page in RUN_PAGES for line in typed_lines(page))


@functools.cache
def all_marks() -> tuple[Mark, ...]:
    """The marks of block_marks.yaml, in order."""
    document: dict[str, dict[str, list[dict[str, Any]]]] = yaml.safe_load(MARKS.read_text("utf-8"))
    return tuple(
        Mark(
            page, section, entry.get("of", ""), entry["reason"], entry.get("replace", {}),
            entry.get("add", ""), entry.get("by", ""), entry.get("until", ""),
        )
        for page, of_page in document.items()
        for section, entries in of_page.items()
        for entry in entries
    )  # fmt: skip


def marks_of(line: TypedLine) -> list[Mark]:
    """The marks of one line, in order."""
    return [mark for mark in all_marks() if mark.is_for(line)]


def substituted(line: TypedLine) -> str | None:
    """What is run in place of a line; None: nothing, and its mark says why."""
    text = line.text
    for mark in marks_of(line):
        if not mark.is_run:
            return None
        for old, new in mark.replace.items():
            text = text.replace(old, new)
        text = f"{text} {mark.add}".rstrip()
    return text
