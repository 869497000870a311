"""The pages that people read, taken apart: pairs of languages, sections, blocks of code, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# English page -> the same in Korean.
PAIRS = {
    ROOT / "README.md": ROOT / "README.ko.md",
    **{page.with_name(f"{page.name.split('.')[0]}.md"): page for page in sorted(DOCS.glob("*.ko.md"))},
}
PAGES = [*PAIRS, *PAIRS.values(), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
PAGES += sorted({*DOCS.glob("*.md")} - {*PAGES}) + sorted(DOCS.glob("*/*.md"))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Section:
    """What stands between two headings.

    Args:
        level: how many `#` its heading has.
        heading: without them.
        lines: those below it, blocks of code included.
    """

    level: int
    heading: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def blocks(self) -> list[tuple[str, str]]:
        """(language, content) of each block of code, in order."""
        return _FENCE.findall(self.text)

    def prose(self) -> str:
        """All but the blocks of code."""
        return _FENCE.sub("", self.text)


def sections(page: Path) -> list[Section]:
    """A page's sections in order; what stands before the first heading belongs to none."""
    found: list[tuple[int, str, list[str]]] = []
    in_block = False
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("```"):
            in_block = not in_block
        if line.startswith("#") and not in_block:
            marks, _, heading = line.partition(" ")
            found.append((len(marks), heading, []))
        elif found:
            found[-1][2].append(line)
    return [Section(level, heading, tuple(lines)) for level, heading, lines in found]


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub makes of a page's headings, and those written into it."""
    made = set(re.findall(r'<a id="([^"]+)">', page.read_text("utf-8")))
    for section in sections(page):
        words = re.sub(r"[^\w\- ]", "", section.heading.lower()).replace(" ", "-")
        number = next(n for n in range(99) if (f"{words}-{n}" if n else words) not in made)
        made.add(f"{words}-{number}" if number else words)
    return made


def links(page: Path) -> Iterator[tuple[str, str]]:
    """(text, target) of each link in a page's prose."""
    prose = re.sub(
        r"`[^`\n]*`", lambda code: code[0].replace("](", "]"), _FENCE.sub("", page.read_text("utf-8"))
    )
    yield from re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", prose)
