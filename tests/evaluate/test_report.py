"""The evaluation page as text: whole in itself, safe, bounded."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from kovqa_core.errors import DataError
from kovqa_core.evaluate.evaluation import evaluate_file
from kovqa_core.evaluate.report import write_report
from kovqa_core.evaluate.report_cards import choose_cards, thumbnail_uri
from PIL import Image

from tests.conftest import Small
from tests.data.test_image_io import chunk, encoded, with_chunk
from tests.evaluate.pages import ATTRIBUTE, HOSTILE, captioned, predict


class Tags(HTMLParser):
    """All tags with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(small: Small, tmp_path: Path) -> str:
    result = evaluate_file(predict(small, tmp_path / "p.jsonl"), small.index / "test.jsonl")
    write_report(result, tmp_path / "r.html", None, 60)
    return (tmp_path / "r.html").read_text("utf-8")


def test_a_page_asks_no_other_host_and_runs_no_other_script(page: str) -> None:
    found = Tags(page)
    assert HOSTILE in found.text, "shown as it was said"
    assert ATTRIBUTE in found.text
    assert [tag for tag, _ in found.tags].count("script") == 1
    addresses = [
        v for _, attrs in found.tags for k, v in attrs.items() if k in ("src", "href", "srcset", "data")
    ]
    assert addresses
    # "#": places of the page itself.
    assert all((address or "").startswith(("data:image/jpeg;base64,", "#")) for address in addresses)
    assert not [attrs for _, attrs in found.tags if any(name.startswith("on") for name in attrs)]
    # The tables of answers have it shortened.
    own = page.replace("img src=&#34;http://example.invalid/x.png", "")
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest", own)
    policy = next(a["content"] for t, a in found.tags if t == "meta" and "http-equiv" in a)
    assert policy and policy.startswith("default-src 'none'; img-src data:;")


def test_the_number_of_examples_is_bounded_and_said(small: Small, tmp_path: Path) -> None:
    result = evaluate_file(predict(small, tmp_path / "p.jsonl"), small.index / "test.jsonl")
    write_report(result, tmp_path / "r.html", None, 2)
    page = (tmp_path / "r.html").read_text("utf-8")
    drawn = page.partition('id="cards"')[2]
    assert drawn.count('<article class="card right"') == drawn.count('<article class="card wrong"') == 2
    assert page.count("<article") == 8, "of the surest errors and the least sure rows as many"
    right = int((result.scores.each >= 0.5).sum())
    assert f"2 of {right} right answers" in page
    assert [c.id for c in choose_cards(result, 2)] == [c.id for c in choose_cards(result, 2)]
    write_report(result, tmp_path / "none.html", None, 0)
    assert "<article" not in (tmp_path / "none.html").read_text("utf-8")


def test_images_that_cannot_be_read_are_shown_as_such(small: Small, tmp_path: Path) -> None:
    shutil.copytree(small.root / "images", tmp_path / "그림들")
    broken, missing, *_ = sorted((tmp_path / "그림들").iterdir(), reverse=True)
    broken.write_bytes(broken.read_bytes()[:200])
    missing.unlink()
    result = evaluate_file(predict(small, tmp_path / "p.jsonl"), small.index / "test.jsonl")
    write_report(result, tmp_path / "r.html", tmp_path / "그림들", 1000)
    lost = {broken.name, missing.name}
    rows = sum(example.image in lost for example in result.examples)
    page = (tmp_path / "r.html").read_text("utf-8").partition('id="cards"')[2]
    assert rows
    assert page.count('<div class="lost">') == rows
    assert page.count("<img ") == len(result.examples) - rows
    with pytest.raises(DataError, match="there is no image folder"):
        write_report(result, tmp_path / "x.html", tmp_path / "none", 1)
    assert not (tmp_path / "x.html").exists()


def test_an_image_outside_the_folder_is_not_in_the_page(small: Small, tmp_path: Path) -> None:
    """An index may be another's, and a page is shown around: no flag puts such a file in."""
    folder = tmp_path / "index"
    shutil.copytree(small.index, folder)
    (tmp_path / "images").symlink_to(small.root / "images")  # links are followed
    lines = (small.index / "test.jsonl").read_text("utf-8").splitlines()
    first, second, third = (json.loads(line) for line in lines[:3])
    Image.new("RGB", (40, 40)).save(tmp_path / "secret.png")
    first["image"], second["image"], third["image"] = (
        "../secret.png",
        str(tmp_path / "secret.png"),
        "~/secret.png",
    )
    changed = [json.dumps(row, ensure_ascii=False) for row in (first, second, third)]
    (folder / "test.jsonl").write_text("\n".join([*changed, *lines[3:], ""]), "utf-8")
    (folder / "test.offsets").unlink()
    result = evaluate_file(predict(small, tmp_path / "p.jsonl"), folder / "test.jsonl")
    shown = write_report(result, tmp_path / "r.html", tmp_path / "images", 1000)
    page = (tmp_path / "r.html").read_text("utf-8").partition('id="cards"')[2]
    assert sorted(shown.outside) == sorted([first["image"], second["image"], third["image"]])
    assert page.count("outside the image folder, not embedded") == page.count('<div class="lost">') == 3
    assert page.count("<img ") == len(result.examples) - 3
    # What lies below the folder that the user names is no stranger's.
    assert len(write_report(result, tmp_path / "r.html", tmp_path, 1000).outside) == 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "I;16", "CMYK", "1"])
def test_a_thumbnail_is_small_whatever_the_picture(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (3000, 1000), 1 if mode in ("1", "P", "L", "I;16") else None).save(path)
    assert thumbnail_uri(path).startswith("data:image/jpeg;base64,")
    assert len(thumbnail_uri(path)) < 20_000


def test_a_thumbnail_shows_what_a_model_sees(tmp_path: Path) -> None:
    """Also of an image whose notes are broken, which a model answers."""
    data = with_chunk(encoded(Image.new("LA", (20, 10))), chunk(b"eXIf", b"\0\x08\0\2"))
    (tmp_path / "a.png").write_bytes(data)
    shown = base64.b64decode(thumbnail_uri(tmp_path / "a.png").partition(",")[2])
    assert Image.open(io.BytesIO(shown)).getextrema() == ((255, 255),) * 3


def test_captions_have_a_page_too(small: Small, tmp_path: Path) -> None:
    index, predictions = captioned(small, tmp_path)
    result = evaluate_file(predictions, index)
    write_report(result, tmp_path / "r.html", small.root / "images", 60)
    page = (tmp_path / "r.html").read_text("utf-8")
    drawn = page.partition('id="cards"')[2]
    assert drawn.count("<article") == drawn.count("<img ") == len(result.examples)
    assert "9 images, 2 different captions. Of the 2 captions given more than once" not in page
    assert "도형이 2개 있는 그림<br>도형 그림" in page
    assert f"{result.scores.metrics['CIDEr'].score:.4f}" in page
