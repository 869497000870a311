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

    Text beyond `max_lines` lines is cut and the last line ends in "…". Syllables that the font lacks are spelled out.
    """
    lines: list[str] = []
    line = ""
    for word in spell_rare_syllables(text).split():
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


def spell_rare_syllables(text: str) -> str:
    """The text with syllables outside KS X 1001, which the font has no glyphs for, as their letters: 똠 as ㄸㅗㅁ."""
    return "".join(map(_spell_syllable, text))


def _spell_syllable(syllable: str) -> str:
    # Of 11,172 syllables EUC-KR has 2,350 in two bytes; the others it spells, too, in eight.
    if not "가" <= syllable <= "힣" or len(syllable.encode("euc_kr")) == 2:
        return syllable
    number = ord(syllable) - ord("가")
    vowel, final = number // 28 % 21, number % 28
    return _INITIALS[number // 588] + chr(ord("ㅏ") + vowel) + ("" if final == 0 else _FINALS[final - 1])


_INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_FINALS = "ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"


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
