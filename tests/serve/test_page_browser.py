"""The page of `kovqa serve` in a real browser, at work with a running server."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from kovqa_core.answer.ask_model import ImageQuestion, ask_model
from kovqa_core.answer.job import AnswerOptions
from kovqa_core.serve import app as serve_app
from kovqa_core.serve.batch_queue import QueueLimits
from kovqa_core.serve.served_models import load_served_models
from kovqa_core.serve.server import ServeOptions, guarded_app

from tests.browser import DESKTOP, PHONE, OpenedPage, OpenPage, axe_violations, in_browser
from tests.conftest import Small
from tests.serve.conftest import MODELS, OPTIONS, RepeatingModels, no_log, png
from tests.web.servers import serving

pytestmark = in_browser

# An image on the clipboard, pasted; and an address, dropped.
PASTE = """async () => {
  const canvas = document.createElement("canvas"), data = new DataTransfer();
  data.items.add(new File([await new Promise((done) => canvas.toBlob(done))], "붙인 것.png", {type: "image/png"}));
  document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
}"""
DROP = """() => {
  const data = new DataTransfer();
  data.setData("text/uri-list", "http://example.invalid/x.png");
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
}"""
TOKEN = "열쇠 없이 아무도 못 들어온다".encode().hex()


def open_ready(open_page: OpenPage, url: str, **how: object) -> OpenedPage:
    """The page, once it knows the server's models and examples."""
    page = open_page(url, **how)
    page.tab.wait_for_selector("[data-ready=yes]")
    return page


def choose(page: OpenedPage, path: Path) -> None:
    """An image; the page has looked at it."""
    page.tab.set_input_files("#choose", path)
    page.tab.wait_for_selector(f"#image[alt='{path.name}'], #image-error:not(:empty)", state="attached")


def ask(page: OpenedPage, question: str) -> None:
    """A question, sent by Enter."""
    page.tab.fill("#question", question)
    page.tab.press("#question", "Enter")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "빨강.png"
    path.write_bytes(png("red"))
    return path


@pytest.mark.parametrize(("size", "language", "dark"), [(PHONE, "ko", True), (DESKTOP, "en", False)])
def test_asking_again_and_comparing(
    url: str, open_page: OpenPage, image: Path, size: tuple[int, int], language: str, dark: bool
) -> None:
    page = open_ready(open_page, url, size=size, language=language, dark=dark)
    tab, korean = page.tab, language == "ko"
    assert axe_violations(tab) == []
    tab.keyboard.press("Tab")  # the first thing leads past the image
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "question"
    choose(page, image)
    ask(page, "첫 질문")
    assert "첫 질문" in tab.inner_text(".given")
    assert tab.locator(".likeliest li").count() == 3
    assert "25.0%" in tab.inner_text(".likeliest")
    assert "첫 질문" in tab.inner_text("#said")  # read aloud
    assert tab.evaluate("document.activeElement.id") == "question"  # ready for the next one

    tab.select_option("#other", "설명")
    ask(page, "둘째 질문")
    tab.locator(".given").nth(1).wait_for()
    named = tab.locator(".answer").evaluate_all("cards => cards.map((card) => card.dataset.model)")
    assert named == ["모양", "설명"]
    assert axe_violations(tab) == []
    tab.set_viewport_size({"width": 320, "height": 700})  # a small phone, or a window at 400 %
    page.assert_clean()
    words = tab.locator("#history").inner_text()
    assert "둘째 질문" in words
    assert "첫 질문" in words

    tab.locator("#history button").last.click()
    assert tab.input_value("#question") == "첫 질문"
    assert tab.locator(".given").count() == 1
    tab.click("#clear")
    assert not tab.is_visible("#history")
    assert tab.title() == ("이미지에 묻기 · kovqa" if korean else "Ask an image · kovqa")
    tab.click("#language")
    assert tab.title() == ("Ask an image · kovqa" if korean else "이미지에 묻기 · kovqa")
    page.assert_clean()


def test_an_image_that_cannot_be_answered(
    url: str, repeating: RepeatingModels, open_page: OpenPage, image: Path, tmp_path: Path
) -> None:
    page = open_ready(open_page, url)
    ask(page, "이미지가 없는 질문")
    assert page.tab.inner_text("#image-error") == "이미지를 먼저 고르십시오."
    huge, text = tmp_path / "큰 것.png", tmp_path / "글.png"
    huge.write_bytes(png() + bytes(OPTIONS.max_body_bytes))
    text.write_text("이미지가 아니다", encoding="utf-8")
    page.tab.evaluate(DROP)
    assert "이미지 파일만 놓을 수 있습니다" in page.tab.inner_text("#image-error")
    page.tab.evaluate(PASTE)
    page.tab.wait_for_selector("#image[alt='붙인 것.png']")
    choose(page, image)
    choose(page, huge)
    assert "큰 것.png: 파일이 0.2 MB입니다" in page.tab.inner_text("#image-error")
    assert page.tab.get_attribute("#image", "alt") == image.name  # the one before stays
    assert repeating.batches == []  # nothing was sent
    choose(page, text)
    ask(page, "무엇인가요?")
    page.tab.wait_for_selector("#image-error:not(:empty)")
    assert "손상되었거나 이미지가 아닙니다" in page.tab.inner_text("#image-error")
    assert page.tab.locator(".answer").count() == 0
    # What the page has no words of its own for, the server says in both languages.
    words = page.tab.evaluate("ask('/v1/none', { method: 'POST' }).catch(faultWords)")
    assert words == ["/v1/none 경로가 없습니다", "there is no /v1/none here"]
    assert axe_violations(page.tab) == []
    page.assert_clean()


def test_a_busy_server_is_asked_again_and_a_question_is_taken_back(
    repeating: RepeatingModels, open_page: OpenPage, image: Path
) -> None:
    options = replace(OPTIONS, limits=QueueLimits(max_batch=1, max_waiting=1, timeout_seconds=20))
    with serving(guarded_app(MODELS, options, TOKEN, no_log)) as url:
        page = open_page(url)
        tab = page.tab
        tab.wait_for_selector("#token-dialog[open]")
        assert axe_violations(tab) == []
        tab.keyboard.type("다른 열쇠")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#token-error:not(:empty)")
        tab.keyboard.type(TOKEN)
        tab.keyboard.press("Enter")
        tab.wait_for_selector("[data-ready=yes]")
        choose(page, image)

        repeating.hold.clear()
        ask(page, "도로 거둔 질문")
        tab.wait_for_selector(".answer .busy")
        assert tab.inner_text("#send") == "취소"
        deadline = time.monotonic() + 10
        while repeating.batches != [1] and time.monotonic() < deadline:  # the model is at work on it
            time.sleep(0.01)
        tab.keyboard.press("Escape")
        assert "취소됨" in tab.inner_text(".answer")

        tab.select_option("#other", "설명")  # one of the two waits, the other is refused
        ask(page, "줄을 선 질문")
        tab.get_by_text("1초 뒤 다시 묻습니다").wait_for()
        repeating.hold.set()
        tab.locator(".given").nth(1).wait_for()
        assert "줄을 선 질문" in " ".join(tab.locator(".given").all_inner_texts())
    ask(page, "아무도 없는 질문")  # the server has ended
    tab.get_by_text("서버에 연결할 수 없습니다").first.wait_for()


def test_a_real_model_says_the_same_in_the_page(
    trained: Path, small: Small, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_app, "ask_model", ask_model)  # in this module models repeat
    image = sorted((small.root / "images").glob("*.png"))[0]
    question = "그림에 도형이 모두 몇 개 있나요?"
    models = load_served_models([trained], AnswerOptions())
    (expected,) = ask_model(models[trained.name].loaded, [ImageQuestion(image, question)])
    with serving(guarded_app(models, ServeOptions(), "", no_log)) as url:
        page = open_ready(open_page, url, size=PHONE)
        page.tab.locator("#example-list button").first.click()
        page.tab.wait_for_selector("#image[alt='1.png']")
        assert page.tab.input_value("#question").endswith("?")
        choose(page, image)
        ask(page, question)
        assert page.tab.inner_text(".given") == expected.text
        page.tab.check("#look-switch")
        page.tab.wait_for_selector(".explained mark")
        assert page.tab.is_visible("#heat")
        assert page.tab.locator("#heat").evaluate("heat => heat.naturalWidth") > 0
        assert page.tab.locator(".explained mark").all_inner_texts() == question.split()
        assert axe_violations(page.tab) == []
        page.assert_clean()
