"""Korean text in drawn images: set in the Hangul subset that comes with the package, so that an image looks the same on a
machine without any Korean font. Lengths are in pixels.
"""

from __future__ import annotations

import io
from functools import lru_cache
from importlib import resources

from PIL import ImageFont


def wrap_text(text: str, font: ImageFont.FreeTypeFont, width: int, max_lines: int) -> list[str]:
    """Lines of at most `width` pixels, broken between words, or inside a word that is wider than a line.

    Text beyond `max_lines` lines is cut and the last line ends in "…".
    """
    lines: list[str] = []
    line = ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        if font.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        # The rest of a word that is too wide begins the next line: more words may follow on it.
        *full, line = _split_word(word, font, width)
        lines.extend(full)
    lines.append(line)
    if len(lines) <= max_lines:
        return lines
    last = lines[max_lines - 1]
    while last and font.getlength(last + "…") > width:
        last = last[:-1]
    return [*lines[: max_lines - 1], last.rstrip() + "…"]


def _split_word(word: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """A word cut into lines that each fit into `width`; one line when the word does."""
    lines = [""]
    for letter in word:
        if lines[-1] and font.getlength(lines[-1] + letter) > width:
            lines.append("")
        lines[-1] += letter
    return lines


@lru_cache(maxsize=16)
def load_font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font at a size in pixels."""
    name = "KovqaSansKR-Bold.otf" if bold else "KovqaSansKR-Regular.otf"
    data = (resources.files("kovqa_core.demo") / "font" / name).read_bytes()
    return ImageFont.truetype(io.BytesIO(data), size)
