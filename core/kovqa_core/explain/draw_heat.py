"""An explanation as an image: a transparent overlay, and a card with answer, words and legend. Lengths are in pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from kovqa_core.data.image_io import open_image
from kovqa_core.demo.korean_text import load_font, wrap_text
from kovqa_core.demo.sheet import CARD_COLOUR, INK_COLOUR, QUIET_COLOUR, TRACK_COLOUR
from kovqa_core.errors import SettingsError
from kovqa_core.explain.covers import cell_pixels
from kovqa_core.explain.explanation import Explanation, WordEffect
from kovqa_core.files import atomic_file, require_other_output
from kovqa_core.messages import message
from kovqa_core.output_lock import output_lock

OVERLAY_SIDE = 640  # the longer side of an overlay
_PANEL_SIDE = 480  # of each of the card's two images
_MARGIN, _GAP = 28, 20
_HOT = np.array([(255, 221, 51), (245, 110, 20), (190, 0, 60)], np.float32)  # of heat 0, 0.5 and 1
_DOUBTFUL = np.array([(120, 124, 134)] * 3, np.float32)
_OPACITY = 0.78
# Korean in every language, like the demo's sheet: what a Korean model says about Korean questions.
_DOUBTS = {
    "explain.flat": "어느 곳을 가려도 답이 거의 그대로입니다. 표시할 곳이 없습니다.",
    "explain.not-confirmed": "확인되지 않은 지도입니다. 표시한 곳을 흐리게 해도 다른 곳보다 답이 더 흔들리지 않습니다.",
}


def draw_overlay(explanation: Explanation, width: int, height: int) -> Image.Image:
    """The heat as a transparent RGBA image of this size; the marked tenth has a line around it.

    A map that says little is grey, and one that says nothing is empty.
    """
    doubt = explanation.doubt
    if doubt is not None and doubt.key == "explain.flat":
        return Image.new("RGBA", (width, height))
    heat = np.asarray(
        Image.fromarray(explanation.heat).resize((width, height), Image.Resampling.BILINEAR)
    ).clip(0, 1)
    colours = _HOT if doubt is None else _DOUBTFUL
    red, green, blue = (np.interp(heat, (0, 0.5, 1), colours[:, channel]) for channel in range(3))
    pixels = np.stack([red, green, blue, 255 * _OPACITY * heat], -1).round().astype(np.uint8)
    overlay = Image.fromarray(pixels, "RGBA")
    line = max(1, max(width, height) // 240)
    inside = Image.fromarray((cell_pixels(explanation.marked, height, width) * 255).astype(np.uint8))
    for colour, thickness in (((20, 22, 30, 255), 2 * line), ((255, 255, 255, 255), line)):
        smaller = inside.filter(ImageFilter.MinFilter(2 * thickness + 1))
        edge = np.asarray(inside).astype(int) - np.asarray(smaller)
        overlay.paste(colour, mask=Image.fromarray(edge.astype(np.uint8)))
    return overlay


def overlay_png(explanation: Explanation, width: int, height: int) -> bytes:
    """The overlay of an image of this size as PNG, in its proportions and OVERLAY_SIDE at most."""
    scale = min(1.0, OVERLAY_SIDE / max(width, height))
    overlay = draw_overlay(explanation, max(1, round(width * scale)), max(1, round(height * scale)))
    buffer = io.BytesIO()
    overlay.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_explanation_card(explanation: Explanation, image: Path, output: Path) -> None:
    """Write a PNG: the image, upright, and beside it the same under its heat; answer, words and a legend below.

    Raises:
        SettingsError: the output is no `.png`, is the image itself, or cannot be written.
        MachineError: the disk is full.
    """
    require_png_output(output, image)
    card = _draw_card(explanation, open_image(image))
    with output_lock(output), atomic_file(output) as stream:
        card.save(stream, "PNG", optimize=True)


def require_png_output(output: Path, image: Path) -> None:
    """See that an explanation can be written there.

    Raises:
        SettingsError: it cannot.
    """
    if output.suffix.lower() != ".png":
        raise SettingsError(
            message("explain.not-png", "{output}: an explanation is written as PNG", output=output),
            message("explain.not-png.hint", "use -o {name}", name=output.with_suffix(".png").name),
        )
    require_other_output(output, [image])


def _draw_card(explanation: Explanation, upright: Image.Image) -> Image.Image:
    scale = _PANEL_SIDE / max(upright.size)
    size = (max(1, round(upright.width * scale)), max(1, round(upright.height * scale)))
    fitted = upright.resize(size, Image.Resampling.LANCZOS)
    heated = fitted.convert("RGBA")
    heated.alpha_composite(draw_overlay(explanation, *size))
    width = 2 * _MARGIN + 2 * _PANEL_SIDE + _GAP
    text = _draw_text(explanation, width)
    card = Image.new("RGB", (width, _MARGIN + size[1] + _GAP + text.height), CARD_COLOUR)
    indent = (_PANEL_SIDE - size[0]) // 2
    card.paste(fitted, (_MARGIN + indent, _MARGIN))
    card.paste(heated.convert("RGB"), (_MARGIN + _PANEL_SIDE + _GAP + indent, _MARGIN))
    card.paste(text, (0, _MARGIN + size[1] + _GAP))
    return card


def _draw_text(explanation: Explanation, width: int) -> Image.Image:
    """What stands below both images, as high as it needs."""
    strip = Image.new("RGB", (width, 2000), CARD_COLOUR)
    draw = ImageDraw.Draw(strip)
    top = _draw_words(draw, explanation.words, 0, width) if explanation.words else 0
    for line in wrap_text(
        explanation.answer.text or "(없음)", load_font(24, bold=True), width - 2 * _MARGIN, 4
    ):
        draw.text((_MARGIN, top), line, INK_COLOUR, load_font(24, bold=True), anchor="la")
        top += 34
    if explanation.answer.score == explanation.answer.score:  # not nan
        draw.text(
            (_MARGIN, top), f"확신 {explanation.answer.score:.1%}", QUIET_COLOUR, load_font(16), anchor="la"
        )
        top += 28
    if explanation.doubt is not None:
        for line in wrap_text(
            _DOUBTS[explanation.doubt.key], load_font(17, bold=True), width - 2 * _MARGIN, 3
        ):
            draw.text((_MARGIN, top), line, (176, 58, 20), load_font(17, bold=True), anchor="la")
            top += 25
    top = _draw_legend(strip, draw, explanation, top + 10)
    return strip.crop((0, 0, width, top + _MARGIN))


def _draw_words(draw: ImageDraw.ImageDraw, words: Sequence[WordEffect], top: int, width: int) -> int:
    """The question's words on grounds as deep as their effects; where the next line begins."""
    font, left = load_font(22), _MARGIN
    largest = max([effect.effect for effect in words] + [1e-9])
    for effect in words:
        (word,) = wrap_text(effect.word, font, width - 2 * _MARGIN - 16, 1)
        length = int(font.getlength(word)) + 16
        if left > _MARGIN and left + length > width - _MARGIN:
            left, top = _MARGIN, top + 44
        heat = max(0.0, effect.effect / max(largest, 1.0))
        ground = tuple(round(255 - (255 - c) * 0.85 * heat) for c in (245, 130, 40))
        draw.rounded_rectangle((left, top, left + length, top + 36), 8, fill=ground, outline=TRACK_COLOUR)
        draw.text((left + 8, top + 18), word, INK_COLOUR, font, anchor="lm")
        left += length + 8
    return top + 54


def _draw_legend(strip: Image.Image, draw: ImageDraw.ImageDraw, explanation: Explanation, top: int) -> int:
    """The colours from unimportant to important, and the line around the marked tenth."""
    font, middle = load_font(15), top + 9
    draw.text((_MARGIN, middle), "덜 중요", QUIET_COLOUR, font, anchor="lm")
    left = _MARGIN + 62
    ramp = np.tile(np.linspace(0, 1, 160, dtype=np.float32), (18, 1))
    colours = _HOT if explanation.doubt is None else _DOUBTFUL
    shades = [np.interp(ramp, (0, 0.5, 1), colours[:, channel]) for channel in range(3)]
    opacity = (_OPACITY * ramp)[..., None]
    shown = np.stack(shades, -1) * opacity + np.array(TRACK_COLOUR) * (1 - opacity)
    strip.paste(Image.fromarray(shown.round().astype(np.uint8)), (left, top))
    draw.text((left + 170, middle), "더 중요", QUIET_COLOUR, font, anchor="lm")
    left += 260
    draw.rectangle((left, top, left + 18, top + 18), outline=(20, 22, 30), width=3)
    method = {"occlusion": "가려 보기", "rollout": "어텐션 롤아웃"}[explanation.method]
    text = f"가장 중요한 10 %   ·   {method}" + (
        "   ·   낱말은 뺐을 때 답이 흔들릴수록 진함" if explanation.words else ""
    )
    draw.text((left + 28, middle), text, QUIET_COLOUR, font, anchor="lm")
    return top + 18
