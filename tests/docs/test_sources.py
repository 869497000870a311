"""Facts that the code cites: each number exists, each fact has a source, and nothing else is cited."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "docs" / "sources"
CODE = ("core", "kovqa_cli", "tests", "bench")
SUFFIXES = {".py", ".sh", ".yaml", ".toml", ".md", ".html"}
LETTERS = {
    "beit3": "B",
    "vqa_nia": "N",
    "llava": "L",
    "datasets": "D",
    "launching": "R",
    "explain": "X",
    "hub_models": "H",
    "benchmarks": "K",
    "choices": "C",
}

_CITED = re.compile(r"docs/sources/(\w+)\.md(?:, ((?:[A-Z]\d+(?:, | and | to )?)+))?")
_FACT = re.compile(r'^<a id="([a-z]\d+)"></a>\n\*\*([A-Z]\d+)\. (.*?)(?=\n\n|\Z)', re.MULTILINE | re.DOTALL)
# What the code cited once: documents that are not in the repository.
_ABSENT = re.compile(
    r"\bspec/|\bspec (?:beit3|vqa_nia|llava|vlm_today|sources|launch|section)\b"
    r"|(?<![\w/])(?:sources|launch|cli)\.md|;\s(?:sources|llava|launch), (?:section )?\d"
)


def cited_lines() -> Iterator[tuple[str, str]]:
    """(file:line, line) of everything that may cite a fact."""
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and "fixtures" not in path.parts:
                for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                    yield f"{path.relative_to(ROOT)}:{number}", line


def facts(document: str) -> dict[str, str]:
    """Number -> text, as the document has them."""
    text = (SOURCES / f"{document}.md").read_text(encoding="utf-8")
    return {number: rest for _, number, rest in _FACT.findall(text)}


def numbers(cited: str) -> list[str]:
    """B1 to B3 and B7 -> B1, B2, B3, B7."""
    expanded: list[str] = []
    for first, last in re.findall(r"([A-Z]\d+)(?: to ([A-Z]\d+))?", cited):
        low, high = int(first[1:]), int((last or first)[1:])
        assert low <= high, f"{first} to {last} runs backwards"
        expanded += [f"{first[0]}{n}" for n in range(low, high + 1)]
    return expanded


def test_index_lists_every_document() -> None:
    index = (SOURCES / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in SOURCES.glob("*.md")} == {"README", *LETTERS}
    for document, letter in LETTERS.items():
        last = max(int(number[1:]) for number in facts(document))
        assert f"[{document}.md]({document}.md) | {letter}1 to {letter}{last} |" in index


@pytest.mark.parametrize("document", LETTERS)
def test_facts_have_a_number_of_their_own_and_a_source(document: str) -> None:
    text = (SOURCES / f"{document}.md").read_text(encoding="utf-8")
    numbered = _FACT.findall(text)
    assert text.count('<a id="') == len(numbered) == len({number for _, number, _ in numbered})
    for anchor, number, rest in numbered:
        assert anchor == number.lower() and number[0] == LETTERS[document]
        assert "\nSource: " in rest, f"{document}.md, {number} names no source"


def test_every_cited_fact_exists() -> None:
    known = {document: facts(document) for document in LETTERS}
    missing = [
        f"{place} cites {document}.md, {number}"
        for place, line in cited_lines()
        for document, cited in _CITED.findall(line)
        for number in (numbers(cited) if document in known else ["which does not exist"])
        if number not in known.get(document, ())
    ]
    assert not missing, "\n".join(missing)


def test_facts_cite_each_other_rightly() -> None:
    known = {document: facts(document) for document in LETTERS}
    for document in LETTERS:
        text = (SOURCES / f"{document}.md").read_text(encoding="utf-8")
        for other, number in re.findall(r"(\w+)\.md,\s([A-Z]\d+)", text):
            assert number in known[other], f"{document}.md cites {other}.md, {number}"


def test_recordings_named_by_facts_exist() -> None:
    for document, folder in (("beit3", "beit3"), ("vqa_nia", "vqa_nia"), ("llava", "llava")):
        recorded = [rest.partition("\nRecorded: ")[2] for rest in facts(document).values()]
        names = re.findall(r"`([\w*/-]+\.(?:json|safetensors|npz|pt|pth|csv))`", "\n".join(recorded))
        assert names
        for name in names:
            assert list((ROOT / "tests/fixtures/parity" / folder).glob(f"**/{name}")), (
                f"{document}.md: {name}"
            )


def test_nothing_cites_a_document_outside_the_repository() -> None:
    lines = [
        (place, re.sub(r"https?://\S+", "", line)) for place, line in cited_lines()
    ]  # the web's are its own
    absent = [f"{place}: {line.strip()}" for place, line in lines if _ABSENT.search(line)]
    assert not absent, "\n".join(absent)
