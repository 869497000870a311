"""One rule for encodings, wherever text is read: a damaged letter is an error, never another letter."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

import pytest
from kovqa_core.data.answers import read_answers
from kovqa_core.data.json_stream import iter_json_list
from kovqa_core.errors import DataError
from kovqa_core.files import read_text
from kovqa_core.text_encoding import decode_blocks, decode_text, detect_encoding
from kovqa_core.tokenizer.corpus import chunk_lines, corpus_chunks

KOREAN = "이 사진에는 무엇이 있나요?\n고양이 한 마리\n"


def decode(data: bytes, block: int = 1 << 20) -> str:
    def blocks() -> Iterator[bytes]:
        yield from (data[start : start + block] for start in range(0, len(data), block))

    return "".join(decode_blocks(blocks, "a.txt"))


@pytest.mark.parametrize("block", [1, 3, 1000])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
def test_text_is_read_in_each_encoding(encoding: str, block: int) -> None:
    assert decode(KOREAN.encode(encoding), block) == KOREAN
    assert decode(("ascii\n" + KOREAN).encode(encoding), block) == "ascii\n" + KOREAN


def test_big_endian_utf_16_and_empty_files() -> None:
    assert decode(codecs.BOM_UTF16_BE + KOREAN.encode("utf-16-be"), 3) == KOREAN
    assert [decode(mark) for mark in (b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE)] == ["", "", ""]


DAMAGED = {
    "a letter cut at the end of a line": ("보".encode() + b"\xeb\n", ":1: damaged UTF-8: byte 3 (0xEB)"),
    "a letter that lost its middle": ("a\n보".encode() + b"\xeb\xb4b\n", ":2: damaged UTF-8: byte 5 (0xEB)"),
    "the very first letter cut, all others whole": (
        "보".encode()[:2] + (KOREAN * 3).encode(), ":1: damaged UTF-8: byte 0 (0xEB)",
    ),
    "CP949 pasted into UTF-8": (KOREAN.encode() + "고양이".encode("cp949"), ":3: damaged UTF-8: byte 59"),
    "CP949 with a cut letter": (KOREAN.encode("cp949")[:-2] + b"\n", ":2: neither UTF-8 nor CP949"),
    "UTF-8 behind a mark": (codecs.BOM_UTF8 + "고".encode("cp949"), ":1: damaged UTF-8: byte 3"),
    "half a letter of UTF-16": (KOREAN.encode("utf-16")[:-1], ":2: damaged UTF-16: byte 50"),
}  # fmt: skip


@pytest.mark.parametrize("block", [1, 1000])
@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_text_is_named_with_line_and_byte(case: str, block: int) -> None:
    data, expected = DAMAGED[case]
    with pytest.raises(DataError) as caught:
        decode(data, block)
    assert f"a.txt{expected}" in caught.value.message


def test_a_cut_letter_is_found_wherever_text_is_read(tmp_path: Path) -> None:
    damaged = '["고양이",\n"보'.encode() + b'\xeb"]\n'
    file = tmp_path / "a.json"  # also a list of answers, and a corpus
    file.write_bytes(damaged)
    readers = (
        lambda: read_text(file),
        lambda: read_answers(file),
        lambda: list(iter_json_list(file)),
        lambda: [line for chunk in corpus_chunks(file) for line in chunk_lines(chunk)],
        lambda: decode_text(damaged, str(file)),
    )
    for read in readers:
        with pytest.raises(DataError, match=r"a\.json:2: damaged UTF-8: byte 18 \(0xEB\)"):
            read()


def test_the_encoding_of_a_corpus_is_that_of_the_whole_file() -> None:
    texts = {"utf-8-sig": KOREAN.encode(), "cp949": KOREAN.encode("cp949"), "utf-16": KOREAN.encode("utf-16")}
    for expected, data in texts.items():
        assert detect_encoding(lambda data=data: iter([data[:5], data[5:]])) == expected  # type: ignore[misc]
    assert detect_encoding(lambda: iter([b"ascii", "고".encode()[:1], "고".encode()[1:]])) == "utf-8-sig"
    # Its first letter is CP949; but not all of it is, so it is damaged UTF-8 and not another text.
    assert detect_encoding(lambda: iter(["가".encode("cp949") + b"\n\xff\n"])) == "utf-8-sig"


@pytest.mark.parametrize("block", [1, 1000])
def test_cp949_whose_first_letters_look_like_utf8(block: int) -> None:
    """책 is C3 A5 (å in UTF-8), 틀 is C6 B2: about one Korean syllable of ten."""
    text = "id,answer\n1,책책\n2,틀렸다\n3,치즈가 있어요\n"
    assert decode(text.encode("cp949"), block) == text
    assert decode("å é\n".encode() * 9, block) == "å é\n" * 9
