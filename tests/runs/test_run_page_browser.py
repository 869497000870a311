"""The page about runs in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.runs.run_page import write_run_page

from tests.browser import DESKTOP, PHONE, OpenPage, axe_violations, in_browser
from tests.runs.run_folders import copy_run, falling_log, write_samples

pytestmark = in_browser


@pytest.mark.parametrize(("size", "language", "dark"), [(PHONE, "ko", True), (DESKTOP, "en", False)])
def test_curves_and_pictures_for_everybody(
    trained: Path, tmp_path: Path, open_page: OpenPage, size: tuple[int, int], language: str, dark: bool
) -> None:
    folders = [
        copy_run(trained, tmp_path / name, falling_log())
        for name in ("<img src=x onerror=alert(1)>", "한국어-이름이-아주-긴-실행-2026")
    ]
    for folder in folders:
        write_samples(folder, {100: "예", 200: "아니요"})
    write_run_page(folders, tmp_path / "page.html")
    page = open_page((tmp_path / "page.html").as_uri(), size=size, language=language, dark=dark)
    tab = page.tab
    assert axe_violations(tab) == []
    page.assert_clean()
    words = {"ko": ("스텝", "학습 시간", "틀림"), "en": ("Steps", "Training time", "wrong")}[language]
    steps, time = (tab.get_by_role("button", name=name, exact=True) for name in words[:2])
    assert tab.get_by_label(words[2], exact=True).count() > 0
    assert (steps.get_attribute("aria-pressed"), time.get_attribute("aria-pressed")) == ("true", "false")
    shown = "seconds of training" if language == "en" else "학습 시간(초)"
    charts = tab.locator("svg.chart:visible")
    before = charts.count()
    assert not tab.get_by_text(shown).first.is_visible()
    time.click()
    assert charts.count() == before == 4
    assert tab.locator(f"svg.chart:visible text:text-is('{shown}')").count() == 2
    assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
