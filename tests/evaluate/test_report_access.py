"""The evaluation page for everybody: keyboard, screen reader, contrast; in both languages and both colours."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.evaluate.evaluation import evaluate_file
from kovqa_core.evaluate.report import write_report

from tests.browser import DESKTOP, PHONE, OpenPage, axe_violations, in_browser
from tests.conftest import Small
from tests.evaluate.pages import predict

pytestmark = in_browser


@pytest.mark.parametrize(("size", "language", "dark"), [(PHONE, "ko", True), (DESKTOP, "en", False)])
def test_nothing_keeps_anybody_out(
    small: Small, tmp_path: Path, open_page: OpenPage, size: tuple[int, int], language: str, dark: bool
) -> None:
    result = evaluate_file(predict(small, tmp_path / "p.jsonl"), small.index / "test.jsonl")
    write_report(result, tmp_path / "report.html", None, 12)
    page = open_page((tmp_path / "report.html").as_uri(), size=size, language=language, dark=dark)
    assert page.tab.get_by_role("searchbox", name={"ko": "찾기", "en": "Search"}[language]).is_visible()
    assert axe_violations(page.tab) == []
    page.assert_clean()
