"""Both languages of a page say the same, section by section.

Sentences cannot be compared here; what they are about can: headings, blocks, rows and columns of tables, items of lists,
names in inline code, links, numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

from tests.docs.blocks import typed_lines
from tests.docs.pages import PAIRS, ROOT, Section, sections

_COMMENT = re.compile(r"\s*#.*$")
# 7.5 M, 250 k, 10,000, 98.7, 1e-6; in Korean 750만, 1억 3,400만. Not within names and versions, and not 2.47–2.52's dash.
_NUMBER = re.compile(
    r"(?<![\w.])(\d[\d,]*(?:\.\d+)*(?:e-?\d+)?)(?![\w]*[a-zA-Z]\d)( (?:k|M|billion|million|megapixels)\b|[만억천])?"
)
_TIMES = {
    "k": 1e3,
    "M": 1e6,
    "million": 1e6,
    "megapixels": 1e6,
    "billion": 1e9,
    "천": 1e3,
    "만": 1e4,
    "억": 1e8,
}


def code_words(section: Section) -> Counter[str]:
    """Inline code of the prose."""
    codes = re.findall(r"`([^`]+)`", section.prose())
    return Counter(re.sub(r"\s+", " ", code).strip() for code in codes)


def shape(section: Section) -> list[str]:
    """Kinds of blocks in their order: paragraphs, items of lists, rows of tables with their columns, code."""
    found: list[str] = []
    in_block, last = False, ""
    for line in section.lines:
        if line.startswith("```"):
            in_block = not in_block
            kind = line if in_block else ""
        elif in_block:
            continue
        elif line.startswith("|"):
            kind = f"row of {re.sub(r'`[^`]*`', '', line).count('|') - 1}"
        elif item := re.match(r"\s*(\*|-|\d+\.) ", line):
            kind = f"item {item[1]}"
        elif line.startswith("<"):
            kind = line
        else:
            kind = "paragraph" if line.strip() else ""
        if kind and not (kind == "paragraph" and last):  # a paragraph's further lines, or an item's
            found.append(kind)
        last = kind if line.strip() else ""
    return found


def numbers(section: Section) -> Counter[float]:
    """Numbers of the prose beyond twelve, which sentences may write as words; with a decimal point or a percent sign all."""
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", section.prose())
    prose = re.sub(
        r"(\d)억 ([\d,]+)만", lambda m: f"{int(m[1]) * 10_000 + int(m[2].replace(',', ''))}만", prose
    )
    found: Counter[float] = Counter()
    for match in _NUMBER.finditer(prose):
        digits, unit = match[1].rstrip(",."), (match[2] or "").strip()
        if digits.count(".") > 1:  # a version, an address
            continue
        value = float(digits.replace(",", "")) * _TIMES.get(unit, 1)
        if value > 12 or "." in digits or "e" in digits or prose[match.end() :].startswith(" %"):
            found[value] += 1
    return found


def link_targets(section: Section) -> Counter[str]:
    """Where a section's links lead, without the language and without the heading."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "`", section.prose()))
    return Counter(target.partition("#")[0].replace(".ko.md", ".md") for target in targets)


def code_blocks(section: Section) -> list[list[str]]:
    """What is typed, without comments; of a session in a terminal its commands, of a text only that there is one.

    The language that a cell chooses is that of its page.
    """
    blocks = []
    for language, content in section.blocks():
        lines = [_COMMENT.sub("", line) for line in content.splitlines()]
        lines = ["KOVQA_LANG" if line.startswith("%env KOVQA_LANG=") else line for line in lines]
        if language == "console":
            lines = [line for line in lines if line.startswith("$ ")]
        blocks.append([language, *([] if language == "text" else lines)])
    return blocks


LOOKS: dict[str, Callable[[Section], object]] = {
    "blocks and tables": shape,
    "inline code": code_words,
    "numbers": numbers,
    "links": link_targets,
    "code blocks": code_blocks,
}


def pairs_of_sections() -> list[object]:
    found = []
    for english, korean in PAIRS.items():
        ours, theirs = sections(english), sections(korean)
        for one, other in zip(ours, theirs, strict=False):
            found.append(pytest.param(one, other, id=f"{english.name}: {one.heading}"))
    return found


@pytest.mark.parametrize(("english", "korean"), PAIRS.items(), ids=lambda page: page.name)
def test_headings_pair(english: Path, korean: Path) -> None:
    ours = [(section.level, section.heading) for section in sections(english)]
    theirs = [(section.level, section.heading) for section in sections(korean)]
    assert [level for level, _ in ours] == [level for level, _ in theirs]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(("english", "korean"), pairs_of_sections())
def test_a_section_says_the_same(english: Section, korean: Section, look: str) -> None:
    assert LOOKS[look](english) == LOOKS[look](korean)


def message_patterns(*, korean: bool) -> list[re.Pattern[str]]:
    """What a terminal can say, as patterns: fields are anything, particles either form."""
    texts = []
    for path in sorted((ROOT / "core/kovqa_core/messages/ko").glob("*.po")):
        with path.open("rb") as stream:
            texts += [entry.string if korean else entry.id for entry in read_po(stream) if entry.id]
    patterns = []
    for text in map(str, texts):
        escaped = re.sub(r"\\\{.*?\\\}", ".+", re.escape(text))
        escaped = re.sub(r"(\w)\\\((\w)\\\)", r"[\1\2]", escaped)
        patterns.append(re.compile(re.sub(r"\\\((\w)\\\)", r"\1?", escaped)))
    return [one for one in patterns if len(re.findall(r"\w", one.pattern.replace(".+", ""))) > 1]


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_an_output_that_is_shown_can_be_said(name: str) -> None:
    """A message that was worded anew is worded anew on the page, too; tests/docs/test_blocks.py compares with what came."""
    patterns = message_patterns(korean=name.endswith(".ko.md"))
    shown = [text for line in typed_lines(ROOT / name) if line.language == "sh" for text in line.expected]
    cells = [cell.strip() for text in shown for cell in re.split(r" {2,}|─+", text)]
    said = [
        cell
        for cell in cells
        if re.search(r"[A-Za-z가-힣]", cell) and not re.fullmatch(r"\S+/\S+|다섯 개", cell)
    ]
    assert len(said) > 10
    assert [text for text in said if not any(pattern.fullmatch(text) for pattern in patterns)] == []
