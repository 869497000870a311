"""Writes notebooks/kovqa_en.ipynb and notebooks/kovqa_ko.ipynb: the README's walk as cells.

    python tools/make_notebook.py

A block of commands is a cell of `!` lines, everything else its text. Pages that run until Ctrl-C stay text: a cell
that never ends would keep "Run all" from its end. `tests/docs/test_notebooks.py` holds both files to what is made here,
and runs one of them.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "core")]

from tests.docs.pages import Section, sections  # noqa: E402

FOLDER = ROOT / "notebooks"
# File -> the README, the heading of its walk, and what stands first.
NOTEBOOKS = {
    "kovqa_en.ipynb": (
        ROOT / "README.md",
        "Your own images, your own table: ten minutes",
        "# kovqa\n\nThe walk of the [README](../README.md) as cells, made from it. Install kovqa first "
        "(`pip install .` in its folder), and choose the Python that has it as this notebook's kernel.",
    ),
    "kovqa_ko.ipynb": (
        ROOT / "README.ko.md",
        "내 이미지와 내 표로 10분",
        "# kovqa\n\n[README](../README.ko.md)의 따라 하기를 그대로 셀로 옮긴 노트북입니다. 먼저 kovqa를 "
        "설치하고(그 폴더에서 `pip install .`), 설치한 Python을 이 노트북의 커널로 고르세요.",
    ),
}
_ENDLESS = ("kovqa view", "kovqa serve")
_PIECES = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def walk_sections(page: Path, heading: str) -> list[Section]:
    """The walk's heading with all that stands below it."""
    found = sections(page)
    first = next(number for number, section in enumerate(found) if section.heading == heading)
    last = next(number for number in range(first + 1, len(found)) if found[number].level <= 2)
    return found[first:last]


def section_cells(section: Section) -> list[tuple[str, str]]:
    """(markdown or code, source) of a section, in order."""
    text = f"{'#' * section.level} {section.heading}\n\n{section.text.strip()}\n"
    text = re.sub(r"\]\((?=docs/|README)", "](../", text)
    cells: list[tuple[str, str]] = []
    end = 0
    for block in _PIECES.finditer(text):
        if block[1].startswith(_ENDLESS):
            continue
        cells.append(("markdown", text[end : block.start()]))
        cells.append(("code", "".join(f"!{line}\n" for line in block[1].splitlines())))
        end = block.end()
    return [(kind, source.strip()) for kind, source in [*cells, ("markdown", text[end:])] if source.strip()]


def make_notebook(page: Path, heading: str, first: str) -> dict[str, Any]:
    """A notebook of format 4.5, without outputs."""
    pieces = [("markdown", first)]
    for section in walk_sections(page, heading):
        pieces += section_cells(section)
    cells = []
    for number, (kind, source) in enumerate(pieces, 1):
        cell = {
            "cell_type": kind,
            "id": f"cell-{number:02d}",
            "metadata": {},
            "source": source.splitlines(keepends=True),
        }
        cells.append({**cell, "execution_count": None, "outputs": []} if kind == "code" else cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def notebook_text(name: str) -> str:
    """A notebook as its file holds it."""
    return json.dumps(make_notebook(*NOTEBOOKS[name]), ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    """Write both."""
    FOLDER.mkdir(exist_ok=True)
    for name in NOTEBOOKS:
        (FOLDER / name).write_text(notebook_text(name), "utf-8")


if __name__ == "__main__":
    main()
