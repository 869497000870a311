"""The page of `kovqa serve`: an image, a question, and what the models say; it talks to the server's own `/v1`."""

from __future__ import annotations

from pathlib import Path

from kovqa_core.web.page_template import render_page


def render_ask_page(*, max_image_bytes: int, max_pixels: int, hears: bool = False) -> str:
    """The page, which refuses by itself what the server would refuse.

    Args:
        max_image_bytes: of the file of one image; 0: the page does not know.
        max_pixels: of one image; 0: the page does not know.
        hears: can questions be spoken?
    """
    folder = Path(__file__).parent
    return render_page(
        folder / "page.html", folder / "ask_server.js", folder / "spoken_question.js",
        max_image_bytes=max_image_bytes, max_pixels=max_pixels, hears=hears,
    )  # fmt: skip
