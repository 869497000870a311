"""The evaluation page in a real browser: pictures, Hangul, filters, sorting, no request, nothing taken over."""

from __future__ import annotations

import json
import re
from html import escape, unescape
from pathlib import Path

import pytest
from kovqa_core.evaluate.evaluation import evaluate_file
from kovqa_core.evaluate.report import write_report
from PIL import Image

from tests.conftest import Small
from tests.evaluate.pages import browse, predict

# What a reader does, and what they see then; written into the page for the test to read.
LOOK = """<script>addEventListener("load", () => {
  const seen = () => Array.from(document.querySelectorAll(".card")).filter((card) => card.offsetHeight);
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
  found.width = innerWidth;
  found.scrolls = document.documentElement.scrollWidth > innerWidth;
  found.pictures = Array.from(document.images).map((image) => image.naturalWidth);
  found.requests = performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 30));
  const told = document.createElement("pre");
  told.id = "told"; told.textContent = JSON.stringify(found); parent.document.body.append(told);
});</script></body>"""


@pytest.fixture(scope="module")
def page(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("보고서")
    result = evaluate_file(predict(small, folder / "p.jsonl"), small.index / "test.jsonl")
    write_report(result, folder / "report.html", None, 60)
    return folder / "report.html"


@pytest.mark.parametrize("width", [390, 1280])
def test_a_reader_can_use_the_page(page: Path, tmp_path: Path, width: int) -> None:
    text = page.read_text("utf-8")
    # Its policy would not run the test's script. In a frame, because no headless window is narrower than 500.
    without = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", LOOK)
    frame = f'<body><iframe width="{width}" height="844" srcdoc="{escape(without)}"></iframe></body>'
    watched = page.with_name(f"watched {width}.html")
    watched.write_text(f'<!doctype html><meta charset="utf-8">{frame}', encoding="utf-8")
    shown = browse(watched, tmp_path / "profile", "--dump-dom")
    told = re.search(r'<pre id="told">(.*?)</pre>', shown, re.DOTALL)
    assert told, shown[-2000:]
    found = json.loads(unescape(told[1]))
    assert found["title"] == "kovqa · p.jsonl"
    assert found["cards"] == text.count("<article")
    assert set(found["wrong"]) == {"card wrong"}
    assert len(found["kinds"]) == 1
    assert set(found["searched"]) == {"틀린 답"}
    assert found["down"] == sorted(found["up"], reverse=True) != found["up"]
    assert found["up"] == sorted(found["up"])
    assert found["korean"] == "질문에 대한 답의 평가"
    assert found["english"] == "How good the answers are"
    assert found["width"] == width
    assert not found["scrolls"], "the page is wider than the window"
    assert len(found["pictures"]) == text.count("<img ")
    assert min(found["pictures"]) > 0
    assert all(name.startswith("data:") for name in found["requests"]), found["requests"]


def test_the_page_works_under_its_own_policy(page: Path, tmp_path: Path) -> None:
    shown = browse(page, tmp_path / "profile", "--dump-dom")
    assert 'data-ready="yes"' in shown
    assert "<title>kovqa · p.jsonl</title>" in shown
    assert re.search(r'<b id="shown">\d+ / \d+</b>', shown)
    smuggled = page.with_name("smuggled.html")
    text = page.read_text("utf-8").replace("</body>", '<script>document.title = "taken"</script></body>')
    smuggled.write_text(text, encoding="utf-8")
    assert "<title>kovqa · p.jsonl</title>" in browse(smuggled, tmp_path / "other", "--dump-dom")


@pytest.mark.parametrize("size", [(390, 844), (1280, 900)])
def test_a_screen_shows_the_page(page: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    shot = tmp_path / "shot.png"
    browse(page, tmp_path / "profile", f"--screenshot={shot}", size=f"{size[0]},{size[1]}")
    with Image.open(shot) as picture:
        assert picture.size == size
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert len(colours or []) > 100, "an empty page"
