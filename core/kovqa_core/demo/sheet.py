"""A contact sheet: images with the question, the model's answer and whether it is right.

Lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw

from kovqa_core.data.image_io import open_image
from kovqa_core.demo.korean_text import load_font, wrap_text
from kovqa_core.errors import DataError
from kovqa_core.files import atomic_file

SheetColour = tuple[int, int, int]

PAPER_COLOUR: SheetColour = (243, 244, 247)
CARD_COLOUR: SheetColour = (255, 255, 255)
EDGE_COLOUR: SheetColour = (226, 228, 234)
INK_COLOUR: SheetColour = (31, 35, 46)
QUIET_COLOUR: SheetColour = (124, 130, 145)
TRACK_COLOUR: SheetColour = (233, 235, 240)
GREEN_COLOUR: SheetColour = (31, 157, 97)
RED_COLOUR: SheetColour = (217, 63, 63)

SHEET_MARGIN = 36
CARD_GAP = 20
CARD_WIDTH = 300
IMAGE_HEIGHT = 300  # height of the image area; the image is fitted inside and never stretched
CARD_PADDING = 18
LINE_HEIGHT = 25  # distance of text lines
MAX_QUESTION_LINES = 4  # of a question; a longer one ends in "…"
HEADER_HEIGHT = 106


@dataclass(frozen=True)
class SheetRow:
    """One answered question.  `score` is the model's confidence in `answer`, from 0 to 1."""

    image: Path
    question: str
    answer: str
    expected: str
    score: float

    @property
    def right(self) -> bool:
        """Whether the answer is the expected one."""
        return self.answer == self.expected


def draw_contact_sheet(rows: Sequence[SheetRow], path: Path, title: str, columns: int = 4) -> None:
    """Write a PNG of all rows as cards, `columns` side by side.

    An image that cannot be read is shown as an empty frame.

    Raises:
        ValueError: no rows, or no columns.
        SettingsError: `path` cannot be written.
        MachineError: the disk is full.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    if columns < 1:
        raise ValueError(f"a contact sheet needs at least one column, got {columns}")
    columns = min(columns, len(rows))
    bands = [rows[start : start + columns] for start in range(0, len(rows), columns)]
    heights = [max(_card_height(row) for row in band) for band in bands]
    width = 2 * SHEET_MARGIN + columns * CARD_WIDTH + (columns - 1) * CARD_GAP
    title_lines = wrap_text(title, load_font(26, bold=True), width - 2 * SHEET_MARGIN, 2)
    header = HEADER_HEIGHT + (len(title_lines) - 1) * 34
    sheet = Image.new(
        "RGB", (width, header + sum(heights) + CARD_GAP * (len(bands) - 1) + SHEET_MARGIN), PAPER_COLOUR
    )
    _draw_header(sheet, title_lines, rows)
    top = header
    for band, height in zip(bands, heights, strict=True):
        for column, row in enumerate(band):
            sheet.paste(_draw_card(row, height), (SHEET_MARGIN + column * (CARD_WIDTH + CARD_GAP), top))
        top += height + CARD_GAP
    with atomic_file(path) as stream:
        sheet.save(stream, "PNG", optimize=True)


def _draw_header(sheet: Image.Image, lines: Sequence[str], rows: Sequence[SheetRow]) -> None:
    draw = ImageDraw.Draw(sheet)
    top = 26
    for line in lines:
        draw.text((SHEET_MARGIN, top), line, INK_COLOUR, load_font(26, bold=True), anchor="la")
        top += 34
    right = sum(row.right for row in rows)
    note = f"아래 {len(rows)}문항: 맞은 답 {right}개, 틀린 답 {len(rows) - right}개"
    draw.text((SHEET_MARGIN, top + 6), note, QUIET_COLOUR, load_font(15), anchor="la")


def _question_lines(row: SheetRow) -> list[str]:
    return wrap_text(row.question, load_font(17), CARD_WIDTH - 2 * CARD_PADDING, MAX_QUESTION_LINES)


def _answer_lines(row: SheetRow) -> list[str]:
    return wrap_text(row.answer or "(없음)", load_font(19, bold=True), CARD_WIDTH - 2 * CARD_PADDING - 34, 2)


def _expected_lines(row: SheetRow) -> list[str]:
    if row.right:
        return []
    return wrap_text(f"정답: {row.expected}", load_font(15), CARD_WIDTH - 2 * CARD_PADDING - 34, 2)


def _card_height(row: SheetRow) -> int:
    lines = (
        len(_question_lines(row)) * LINE_HEIGHT
        + len(_answer_lines(row)) * 27
        + len(_expected_lines(row)) * 22
    )
    return IMAGE_HEIGHT + CARD_PADDING + lines + 12 + 34 + 8


def _draw_card(row: SheetRow, height: int) -> Image.Image:
    """One card on the sheet's ground: image above, text below, the confidence bar along the foot."""
    card = Image.new("RGB", (CARD_WIDTH, height), PAPER_COLOUR)
    mask = _rounded_mask((CARD_WIDTH, height), 14)
    card.paste(EDGE_COLOUR, (0, 0), mask)
    inside = Image.new("RGB", (CARD_WIDTH - 2, height - 2), CARD_COLOUR)
    inside.paste(_fit_image(row.image), (0, 0))
    card.paste(inside, (1, 1), _rounded_mask(inside.size, 13))
    draw = ImageDraw.Draw(card)
    top = IMAGE_HEIGHT + CARD_PADDING
    for line in _question_lines(row):
        draw.text((CARD_PADDING, top), line, INK_COLOUR, load_font(17), anchor="la")
        top += LINE_HEIGHT
    top += 12
    colour = GREEN_COLOUR if row.right else RED_COLOUR
    card.paste(colour, (CARD_PADDING, top + 1), _verdict_mark(right=row.right, side=24))
    for line in _answer_lines(row):
        draw.text((CARD_PADDING + 34, top), line, colour, load_font(19, bold=True), anchor="la")
        top += 27
    for line in _expected_lines(row):
        draw.text((CARD_PADDING + 34, top), line, QUIET_COLOUR, load_font(15), anchor="la")
        top += 22
    _draw_bar(card, row.score, colour, height - 28)
    return card


def _draw_bar(card: Image.Image, score: float, colour: SheetColour, middle: int) -> None:
    """The confidence as a bar and a percentage; anything outside 0 to 1 is clipped, NaN counts as 0."""
    # `score > 0` is False for NaN.
    fraction = min(1.0, score) if score > 0 else 0.0
    left, right, thick = CARD_PADDING, CARD_WIDTH - CARD_PADDING - 52, 8
    box = (left, middle - thick // 2)
    card.paste(TRACK_COLOUR, box, _rounded_mask((right - left, thick), thick // 2))
    filled = max(thick, round((right - left) * fraction))
    if fraction > 0:
        card.paste(colour, box, _rounded_mask((filled, thick), thick // 2))
    draw = ImageDraw.Draw(card)
    draw.text(
        (CARD_WIDTH - CARD_PADDING, middle),
        f"{100 * fraction:.0f}%",
        QUIET_COLOUR,
        load_font(14),
        anchor="rm",
    )


def _fit_image(path: Path) -> Image.Image:
    """The image, whole, on a quiet ground that fills the image area."""
    area = Image.new("RGB", (CARD_WIDTH - 2, IMAGE_HEIGHT), (236, 238, 242))
    try:
        upright = open_image(path)
    except DataError:
        font = load_font(15)
        ImageDraw.Draw(area).text(
            (area.width / 2, IMAGE_HEIGHT / 2), "그림을 열 수 없음", QUIET_COLOUR, font, anchor="mm"
        )
        return area
    scale = min(area.width / upright.width, area.height / upright.height)
    size = (max(1, round(upright.width * scale)), max(1, round(upright.height * scale)))
    if abs(size[0] - area.width) <= 3 and abs(size[1] - area.height) <= 3:
        size = area.size  # a square image: do not leave a hair of ground at its edge
    fitted = upright.resize(size, Image.Resampling.LANCZOS)
    area.paste(fitted, ((area.width - size[0]) // 2, (area.height - size[1]) // 2))
    return area


@lru_cache(maxsize=64)
def _rounded_mask(size: tuple[int, int], radius: int) -> Image.Image:
    """Coverage of a rectangle with round corners, smooth at the edge."""
    # Four times as large, then averaged: Pillow draws no smooth edges.
    mask = Image.new("L", (size[0] * 4, size[1] * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] * 4 - 1, size[1] * 4 - 1), radius * 4, fill=255)
    return mask.reduce(4)


@lru_cache(maxsize=4)
def _verdict_mark(*, right: bool, side: int) -> Image.Image:
    """A disc with a tick, or a cross, cut out of it."""
    unit = side * 4 / 24
    mask = Image.new("L", (side * 4, side * 4), 0)
    draw = ImageDraw.Draw(mask)
    draw.ellipse((0, 0, side * 4 - 1, side * 4 - 1), fill=255)
    strokes = [[(6.8, 12.4), (10.5, 16.0), (17.2, 8.4)]]
    if not right:
        strokes = [[(8, 8), (16, 16)], [(16, 8), (8, 16)]]
    for stroke in strokes:
        points = [(x * unit, y * unit) for x, y in stroke]
        draw.line(points, fill=0, width=round(2.4 * unit), joint="curve")
        for x, y in (points[0], points[-1]):
            end = 1.2 * unit
            draw.ellipse((x - end, y - end, x + end, y + end), fill=0)
    return mask.reduce(4)
