"""Ids that repeat: one rule, whatever the order of the rows."""

from __future__ import annotations

import random
import unicodedata

import pytest
from kovqa_core.data.row_ids import TableRow, qualified_id, unique_row_ids, unqualified_id


def ids(*rows: tuple[str, str, str]) -> list[str | None]:
    return unique_row_ids([TableRow(*row) for row in rows])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("1", "a.jpg", "q"), ("2", "a.jpg", "q")], ["1", "2"]),
        ([("1", "a.jpg", "q"), ("1", "b.jpg", "q")], ["a.jpg#1", "b.jpg#1"]),
        ([("1", "a.jpg", "q"), ("2", "a.jpg", "q"), ("1", "b.jpg", "r")], ["a.jpg#1", "2", "b.jpg#1"]),
        ([("1", "a.jpg", "q"), ("1", "a.jpg", "q")], ["1", None]),
        ([("1", "a.jpg", "q"), ("1", "a.jpg", "r")], ["a.jpg#1#1", "a.jpg#1#2"]),
        ([("1", "a.jpg", "q"), ("1", "a.jpg", "q"), ("1", "b.jpg", "q")], ["a.jpg#1", None, "b.jpg#1"]),
        (
            [("1", "a.jpg", "q"), ("1", "b.jpg", "q"), ("1", "a.jpg", "r"), ("1", "a.jpg", "q")],
            ["a.jpg#1#1", "b.jpg#1", "a.jpg#1#2", None],
        ),
        ([("ab", "c", "q"), ("a", "bc", "q")], ["ab", "a"]),
        ([("", "a.jpg", "q"), ("", "b.jpg", "q")], ["a.jpg#", "b.jpg#"]),
        ([], []),
    ],
)
def test_rows_that_share_an_id_are_told_apart_by_their_image(
    rows: list[tuple[str, str, str]], expected: list[str | None]
) -> None:
    assert ids(*rows) == expected


def test_one_image_in_two_unicode_forms_is_one_image() -> None:
    spelled = unicodedata.normalize("NFD", "동물.jpg")
    assert ids(("1", "동물.jpg", "뭐?"), ("1", spelled, "뭐?")) == ["1", None]
    assert ids(("1", "a.jpg", "뭐?"), ("1", spelled, "뭐?")) == ["a.jpg#1", "동물.jpg#1"]


def test_the_order_of_the_images_changes_no_id() -> None:
    draw = random.Random(5)
    rows = [(str(draw.randrange(9)), f"{draw.randrange(6)}.jpg", "q") for _ in range(60)]
    by_row = {row: id for row, id in zip(rows, ids(*rows), strict=True) if id is not None}
    assert len(set(by_row.values())) == len(by_row) == len(set(rows))
    draw.shuffle(rows)
    assert {row: id for row, id in zip(rows, ids(*rows), strict=True) if id is not None} == by_row


def test_a_qualified_id_gives_the_datas_own_back() -> None:
    assert unqualified_id(qualified_id("7", "동물/1.jpg"), "동물/1.jpg") == "7"
    assert unqualified_id("7", "동물/1.jpg") == "7"


def test_an_id_with_an_image_that_is_not_utf_8_can_be_written() -> None:
    assert qualified_id("7", "a/\udcb0\udced.png") == "a/고.png#7"
    assert unqualified_id("a/고.png#7", "a/\udcb0\udced.png") == "7"
