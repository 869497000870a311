"""The page in a real browser: filters, search in Hangul, one row, an export; Korean and English, phone and desktop."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from kovqa_core.index.reader import open_index
from kovqa_core.view.app import make_app
from kovqa_core.view.inputs import open_inputs
from kovqa_core.view.session import ViewSession

from tests.browser import DESKTOP, PHONE, OpenedPage, OpenPage, axe_violations, in_browser
from tests.conftest import Small
from tests.evaluate.pages import captioned
from tests.view.conftest import HOSTILE
from tests.web.servers import serving

pytestmark = in_browser


@pytest.fixture(scope="module")
def url(session: ViewSession) -> Iterator[str]:
    with serving(make_app(session)) as address:
        yield address


def ready(opened: OpenedPage) -> OpenedPage:
    opened.tab.wait_for_selector(":root[data-ready=yes]")
    settled(opened)
    return opened


def settled(opened: OpenedPage) -> None:
    opened.tab.wait_for_selector("#panel:not([aria-busy])")


def wait(opened: OpenedPage, is_so: Callable[[], bool]) -> None:
    """Wait for something; a function in the page would be evaluated there, which its policy forbids."""
    for _ in range(500):
        if is_so():
            return
        opened.tab.wait_for_timeout(20)
    raise AssertionError("it never was so")


def query(opened: OpenedPage) -> dict[str, list[str]]:
    return parse_qs(urlsplit(opened.tab.url).query)


def rows_shown(opened: OpenedPage) -> int:
    return int(opened.tab.inner_text("#tiles .tile b"))


def test_filter_search_look_and_go_back(url: str, open_page: OpenPage) -> None:
    page = ready(open_page(url))
    tab = page.tab
    everything = rows_shown(page)
    tab.select_option("[name=a]", "wrong")
    wait(page, lambda: rows_shown(page) != everything)
    settled(page)
    wrong = rows_shown(page)
    assert query(page) == {"a": ["wrong"]} and 0 < wrong < everything
    tab.fill("[name=q]", "틀린 답")
    tab.wait_for_url("**q=*")
    settled(page)
    assert query(page)["q"] == ["틀린 답"]
    first = tab.locator(".card a").first
    first.click()
    tab.wait_for_selector("dialog[open] #detail img")
    row = query(page)["row"]
    assert tab.inner_text("#detail .wrong").endswith("틀린 답")
    tab.keyboard.press("ArrowRight")
    wait(page, lambda: query(page)["row"] != row)
    tab.keyboard.press("Escape")
    wait(page, lambda: "row" not in query(page))
    tab.wait_for_selector("dialog:not([open])", state="attached")
    tab.go_back()
    tab.wait_for_selector("dialog[open]")
    tab.go_back()
    tab.wait_for_selector("dialog:not([open])", state="attached")
    tab.click("#reset")
    wait(page, lambda: rows_shown(page) == everything)
    settled(page)
    assert HOSTILE in tab.inner_text("#panel") and tab.title() == "데이터와 오류 · kovqa"
    page.assert_clean()


def test_the_address_is_the_view(url: str, open_page: OpenPage) -> None:
    page = ready(open_page(f"{url}/?a=wrong&tab=confusion", language="en"))
    assert page.tab.input_value("[name=a]") == "wrong"
    assert page.tab.get_attribute("[aria-selected=true]", "id") == "tab-confusion"
    page.tab.locator("#panel .link").first.click()
    page.tab.wait_for_selector(".cards")
    assert {"answer", "given"} <= query(page).keys() and "tab" not in query(page)
    with page.tab.expect_download() as download:
        page.tab.click("#csv")
    table = download.value.path().read_text(encoding="utf-8-sig")
    assert len(table.splitlines()) == 1 + rows_shown(page) > 1
    page.tab.locator("#tabs [role=tab]").first.focus()
    page.tab.keyboard.press("ArrowRight")
    page.tab.wait_for_selector("#tab-answers[aria-selected=true]")
    assert page.tab.evaluate("document.activeElement.id") == "tab-answers"
    page.assert_clean()


# Where no data stands.
WORDS = ("header", "[name=a]", "[name=pair]", "[name=sort]", "#reset", "#csv", "#tabs", "#panel thead")


def test_captions_of_one_model(small: Small, tmp_path: Path, open_page: OpenPage) -> None:
    index, said = captioned(small, tmp_path)
    session = ViewSession(open_inputs(index, [said], images=open_index(small.index).images), keep=False)
    with serving(make_app(session)) as url:
        page = open_page(url)
        # Rows are there before anything is counted, and the page says so.
        page.tab.wait_for_selector(":root[data-ready=soon] .card img")
        assert "통계를 내는 중" in page.tab.inner_text("#status") and page.tab.is_disabled("[name=q]")
        session.start()
        ready(page)
        assert page.tab.inner_text("#status") == "" and "CIDEr" in page.tab.inner_text("#tiles")
        assert page.tab.is_visible("[name=a]") and not page.tab.is_visible("[name=b]")
        assert page.tab.locator("[role=tab]").count() == 1
        assert "kovqa caption --input" in page.tab.inner_text("#controls")
        page.assert_clean()
    session.close()


@pytest.mark.parametrize(
    ("size", "language", "dark", "tabs"),
    [
        (PHONE, "ko", False, ("gallery", "calibration", "confusion")),
        (DESKTOP, "en", True, ("answers", "questions")),
    ],
)
def test_for_everyone(
    url: str, open_page: OpenPage, size: tuple[int, int], language: str, dark: bool, tabs: tuple[str, ...]
) -> None:
    page = ready(open_page(url, size=size, language=language, dark=dark))
    for name in tabs:
        page.tab.click(f"#tab-{name}")
        page.tab.wait_for_selector(f"#tab-{name}[aria-selected=true]")
        settled(page)
        assert axe_violations(page.tab) == [], name
        page.assert_clean()
    words = "".join(page.tab.inner_text(part) for part in WORDS)
    for name in ("English", "한국어", "kovqa predict.*", "[ab].?.jsonl", "index"):
        words = re.sub(name, "", words)
    theirs = re.search("[a-z]{5,}" if language == "ko" else "[가-힣]", words)
    assert theirs is None, theirs
    page.tab.goto(f"{url}/?row=2-0")
    page.tab.wait_for_selector("dialog[open] #detail img")
    assert axe_violations(page.tab) == []
    page.assert_clean()
