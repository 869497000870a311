"""Names of files that are not UTF-8, in texts for people."""

from __future__ import annotations

import os

import pytest
from kovqa_core.errors import DataError
from kovqa_core.messages import message
from kovqa_core.messages.readable_name import readable_name


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\xb0\xed.png", "고.png"),
        ("자료/".encode() + "똠.png".encode("cp949"), "자료/똠.png"),  # its second byte is a letter
        ("image 자료/".encode() + b"\xb0\xed b.png is missing", "image 자료/고 b.png is missing"),
        (b"a\xff\xff.png", "a\\xff\\xff.png"),
        (b"a\xe1\x84\x92\xb0.png", "aᄒ\\xb0.png"),
        ("한.png".encode(), "한.png"),
    ],
)
def test_a_name_that_is_not_utf_8_is_readable_and_can_be_written(raw: bytes, text: str) -> None:
    name = os.fsdecode(raw)
    assert readable_name(name) == text
    assert str(DataError(message("data.image-missing", "{file}", file=name)).message) == text


def test_half_a_surrogate_pair_is_escaped() -> None:
    assert readable_name("\ud83d.png") == "\\ud83d.png"
