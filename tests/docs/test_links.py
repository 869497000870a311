"""Links between pages lead somewhere: the file exists, and the heading in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import PAGES, PAIRS, ROOT, anchors, links


def dead_links(page: Path) -> list[str]:
    """Targets of a page's links that do not exist in the repository; those of the web are not tried."""
    dead = []
    for _, target in links(page):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        aim = (page.parent / name).resolve() if name else page
        if not aim.exists() or (anchor and anchor not in anchors(aim)):
            dead.append(target)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text(
        "# 내 데이터, a b\n[x](#내-데이터-a-b) [y](#nowhere) [z](b.md) [w](https://example.org/b.md)\n",
        "utf-8",
    )
    assert dead_links(page) == ["#nowhere", "b.md"]


def test_korean_pages_stay_korean() -> None:
    """Where a page has a Korean twin, Korean pages lead to that; each of a pair leads to the other."""
    for english, korean in PAIRS.items():
        targets = {(korean.parent / target.partition("#")[0]).resolve() for _, target in links(korean)}
        assert targets & {*PAIRS} <= {english}, korean
        assert english in targets, korean
        assert korean in {
            (english.parent / target.partition("#")[0]).resolve() for _, target in links(english)
        }
