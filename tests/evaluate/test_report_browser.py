"""The evaluation page in a real browser: pictures, Hangul, filters, sorting, no request, nothing taken over."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kovqa_core.evaluate.compare_predictions import compare_predictions
from kovqa_core.evaluate.evaluation import evaluate_file
from kovqa_core.evaluate.report import write_report

from tests.browser import DESKTOP, PHONE, OpenPage, axe_violations, in_browser
from tests.conftest import Small
from tests.evaluate.pages import numbered, predict

pytestmark = in_browser

# What a reader does, and what they see then.
LOOK = """() => {
  const seen = () => Array.from(document.querySelectorAll("#cards .card")).filter((card) => card.offsetHeight);
  const found = {title: document.title, cards: seen().length};
  document.querySelector("[data-verdict=wrong]").click();
  found.wrong = seen().map((card) => card.className);
  document.querySelector("[data-verdict=all]").click();
  const kind = document.getElementById("kind");
  kind.value = kind.options[1].value;
  kind.dispatchEvent(new Event("change"));
  found.kinds = Array.from(new Set(seen().map((card) => card.dataset.kind)));
  kind.value = "*";
  const search = document.getElementById("search");
  search.value = "틀린 답";
  search.dispatchEvent(new Event("input"));
  found.searched = seen().map((card) => card.querySelector(".given").textContent);
  const column = () => Array.from(document.querySelector("table").tBodies[0].rows).map((row) => +row.cells[2].dataset.value);
  const sort = document.querySelectorAll("table th button")[2];
  sort.click(); found.down = column();
  sort.click(); found.up = column();
  found.korean = document.querySelector("h1").innerText;
  document.getElementById("language").click();
  found.english = document.querySelector("h1").innerText;
  found.pictures = Array.from(document.images).map((image) => image.naturalWidth);
  found.requests = performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 30));
  return found;
}"""
# All words of a page that one can read or hear.
WORDS = """() => [document.body.innerText, ...Array.from(document.querySelectorAll("option"), (o) => o.textContent),
  ...Array.from(document.querySelectorAll("[aria-label], [placeholder]"), (e) => e.ariaLabel + " " + (e.placeholder || "")),
  ...Array.from(document.querySelectorAll("svg")).filter((s) => s.checkVisibility()).map((s) => s.textContent)].join(" ")"""


# Cells of many rows. axe-core passes over the contrast of a single letter.
DARKEST = (
    """cells => cells.forEach((cell) => { cell.style.setProperty("--share", 1); cell.textContent = "77"; })"""
)


@pytest.fixture(scope="module")
def page(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("보고서")
    result = evaluate_file(predict(small, folder / "p.jsonl"), small.index / "test.jsonl")
    write_report(result, folder / "report.html", None, 60)
    return folder / "report.html"


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_a_reader_can_use_the_page(page: Path, open_page: OpenPage, size: tuple[int, int]) -> None:
    opened = open_page(page.as_uri(), size=size)
    found = opened.tab.evaluate(LOOK)
    assert found["title"] == "kovqa · p.jsonl"
    assert found["cards"] == page.read_text("utf-8").partition('id="cards"')[2].count("<article")
    assert set(found["wrong"]) == {"card wrong"}
    assert len(found["kinds"]) == 1
    assert set(found["searched"]) == {"틀린 답"}
    assert found["down"] == sorted(found["up"], reverse=True) != found["up"]
    assert found["up"] == sorted(found["up"])
    assert found["korean"] == "질문에 대한 답의 평가"
    assert found["english"] == "How good the answers are"
    assert len(found["pictures"]) == page.read_text("utf-8").count("<img ")
    assert min(found["pictures"]) > 0
    assert all(name.startswith("data:") for name in found["requests"]), found["requests"]
    opened.assert_clean()


def test_the_page_works_under_its_own_policy(page: Path, open_page: OpenPage) -> None:
    smuggled = page.with_name("smuggled.html")
    text = page.read_text("utf-8").replace("</body>", '<script>document.title = "taken"</script></body>')
    smuggled.write_text(text, encoding="utf-8")
    opened = open_page(smuggled.as_uri())
    assert opened.tab.title() == "kovqa · p.jsonl"
    assert opened.tab.locator("html[data-ready=yes]").count() == 1
    assert re.fullmatch(r"\d+ / \d+", opened.tab.locator("#shown").inner_text())
    assert "Content Security Policy" in opened.errors[0], "what was smuggled in was not run"


@pytest.mark.parametrize(("size", "language", "dark"), [(PHONE, "ko", True), (DESKTOP, "en", False)])
def test_one_language_at_a_time_and_nothing_keeps_anybody_out(
    tmp_path: Path, open_page: OpenPage, size: tuple[int, int], language: str, dark: bool
) -> None:
    """All of the data are digits, so whatever letters there are, the page wrote."""
    folder = tmp_path / "0"
    folder.mkdir()
    index, *predictions = numbered(folder)
    a, b = (evaluate_file(path, index) for path in predictions)
    write_report(a, tmp_path / "3.html", folder / "images", 12, comparison=compare_predictions(a, b))
    opened = open_page((tmp_path / "3.html").as_uri(), size=size, language=language, dark=dark)
    assert opened.tab.get_by_role("searchbox", name={"ko": "찾기", "en": "Search"}[language]).is_visible()
    said = opened.tab.evaluate(WORDS)
    if language == "en":
        assert re.findall(r"[가-힣]+", said) == ["한국어"], "the button that changes to it"
    else:
        names = {"English", "ECE", "kovqa", "A", "B", "p", "jsonl", "png", "train", "test", "score"}
        assert set(re.findall(r"[A-Za-z]+", said)) - names == set()
    opened.tab.locator(".confusion td").evaluate_all(DARKEST)
    assert axe_violations(opened.tab) == []
    opened.assert_clean()
