"""A real browser for pages: the system's chromium, driven by playwright; what a page does that it must not is recorded.

Tests that open pages carry `in_browser`: they share one worker, and so one browser.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

in_browser = pytest.mark.xdist_group("browser")

PHONE = (390, 844)
DESKTOP = (1280, 900)

_MICROPHONE = "--use-fake-device-for-media-stream"  # one that beeps
# No name is looked up and no address but this machine's is reached, whatever a page asks for.
_ONLY_HERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@dataclass
class OpenedPage:
    """A page in a tab of its own.

    Attributes:
        tab: playwright's page.
        home: host and port that the page may ask; empty: a file, which may ask nobody.
        foreign: addresses elsewhere that the page asked for.
        errors: what the console called an error, and exceptions that nobody caught. A server's refusal is none.
    """

    tab: Page
    home: str
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def assert_clean(self) -> None:
        """No request to another host, no error in the console, nothing wider than the window."""
        assert self.foreign == []
        assert self.errors == []
        wide = self.tab.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"the page is {wide} pixels wider than the window"

    def _record_request(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != self.home:
            self.foreign.append(address)

    def _record_message(self, said: ConsoleMessage) -> None:
        # Chromium writes every 4xx and 5xx into the console; whether a page may be refused, its test says.
        refused = said.text.startswith("Failed to load resource: the server responded with a status of")
        if said.type == "error" and not refused:
            self.errors.append(said.text)


OpenPage = Callable[..., OpenedPage]


def chromium() -> str:
    """The browser; where CI lacks one the test fails, elsewhere it is left out with a word."""
    from tests.conftest import left_out  # which imports this module

    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        left_out("no chromium here: apt-get install chromium fonts-nanum")
    return found or ""


@dataclass(frozen=True)
class StartedBrowser:
    """A browser, and the loop that playwright talks to it in."""

    chromium: Browser
    loop: asyncio.AbstractEventLoop


@pytest.fixture(scope="session")
def browser() -> Iterator[StartedBrowser]:
    """One browser for all tests of a worker."""
    from tests.conftest import left_out

    for library in ("playwright", "axe_playwright_python"):
        if find_spec(library) is None:
            left_out(f"no {library} here: pip install -e '.[dev]'")
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--use-fake-device-for-media-stream", _ONLY_HERE]
        )
        # playwright's loop counts as running in this thread from its start to its end, in which `asyncio.run` of
        # any other test would be refused: between the tests that open pages it is hidden.
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        yield StartedBrowser(started, loop)
        asyncio._set_running_loop(loop)
        started.close()
    asyncio._set_running_loop(None)


@pytest.fixture
def open_page(browser: StartedBrowser) -> Iterator[OpenPage]:
    """Opens an address in a fresh profile: `open_page(url, size=PHONE, language="en", dark=True)`."""
    contexts = []
    asyncio._set_running_loop(browser.loop)

    def go(
        address: str, *, size: tuple[int, int] = DESKTOP, language: str = "ko", dark: bool = False
    ) -> OpenedPage:
        width, height = size
        context = browser.chromium.new_context(
            viewport={"width": width, "height": height}, locale={"ko": "ko-KR", "en": "en-GB"}[language],
            color_scheme="dark" if dark else "light", has_touch=width < 600, service_workers="block",
        )  # fmt: skip
        contexts.append(context)
        context.set_default_timeout(15_000)
        opened = OpenedPage(context.new_page(), urlsplit(address).netloc)
        context.on("request", lambda request: opened._record_request(request.url))
        opened.tab.on("console", opened._record_message)
        opened.tab.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.tab.goto(address)
        return opened

    try:
        yield go
    finally:
        for context in contexts:
            with suppress(Exception):  # a test may have closed it
                context.close()
        asyncio._set_running_loop(None)


def axe_violations(tab: Page) -> list[str]:
    """What axe-core finds serious or critical about the accessibility of what a tab shows, one line a place."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:160]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
