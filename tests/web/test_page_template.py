"""Templates of pages."""

from __future__ import annotations

from kovqa_core.web.page_template import shorten_text


def test_the_name_of_an_image_that_is_not_utf_8_can_be_written() -> None:
    assert shorten_text("\udcb0\udced.png") == "고.png"
