"""Writes docs/blocks.md: what tests run of the pages' code blocks in another way than they stand, and why.

    python tools/list_blocks.py [--check]

--check writes nothing and fails where the page is not as tests/docs/block_marks.yaml says.
"""

from __future__ import annotations

import argparse
import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "core")]

from tests.docs.blocks import Mark, TypedLine, all_lines, all_marks, marks_of  # noqa: E402

PAGE = ROOT / "docs" / "blocks.md"
HEAD = """# What tests run of the code blocks

Written by `python tools/list_blocks.py` from `tests/docs/block_marks.yaml`. `tests/docs/test_blocks.py` runs the blocks of
README and docs, section by section, each in one folder, in order; the names on a page stand for small data and models
there. Of {all} lines {plain} run as they stand; the others are here. A Korean page has the blocks of its English twin.
"""


def cell(text: str) -> str:
    """As a cell of a table holds it."""
    return text.replace("|", "\\|").replace("\n", " ")


def code(text: str) -> str:
    return f"`{cell(text)}`" if text else ""


def substitute(mark: Mark) -> str:
    """What is run in place."""
    parts = [f"{code(old.strip())} → {code(new.strip()) or 'nothing'}" for old, new in mark.replace.items()]
    parts += [f"with {code(mark.add)}"] * bool(mark.add) + ["then Ctrl-C"] * bool(mark.until)
    if not mark.is_run:
        parts.append(f"not run here, but by [{Path(mark.by).name}](../{mark.by})" if mark.by else "not run")
    return "; ".join(parts)


def rows_of(page: str, lines: list[TypedLine]) -> list[str]:
    """A row for each mark of a page."""
    rows = []
    for mark in (mark for mark in all_marks() if mark.page == page):
        marked = [line for line in lines if mark in marks_of(line)]
        first = mark.of or marked[0].text.partition("\n")[0]
        place = mark.section or marked[0].heading
        rows.append(f"| {cell(place)} | {code(first)} | {substitute(mark)} | {cell(mark.reason)} |")
    return rows


def make_page() -> str:
    """The whole page."""
    lines = list(all_lines())
    plain = sum(not marks_of(line) for line in lines)
    parts = [HEAD.format(all=len(lines), plain=plain)]
    for page, group in groupby(lines, lambda line: line.page):
        if rows := rows_of(page, list(group)):
            head = "| section | lines that begin with | run in their place | because |\n|---|---|---|---|\n"
            parts.append(f"## {page}\n\n{head}" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def main() -> None:
    """Write the page, or see that it is as the marks say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    made = make_page()
    if not parser.parse_args().check:
        PAGE.write_text(made, "utf-8")
    elif PAGE.read_text("utf-8") != made:
        sys.exit("docs/blocks.md is not as the marks say: python tools/list_blocks.py")


if __name__ == "__main__":
    main()
