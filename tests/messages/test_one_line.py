"""Text of files and servers in a line for people: one line, no control characters, cut with its length, pasteable."""

from __future__ import annotations

import json
import subprocess
import unicodedata

import pytest
from kovqa_core.errors import DataError
from kovqa_core.messages import message, shell_quote
from kovqa_core.messages.one_line import MAX_VALUE_LENGTH, cut_value, escape_json, escape_one_line

HOSTILE = [
    ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
    ("two\nlines\r\n", r"two\nlines\r\n"),
    ("\x9b31m\x90\x7f\0\b", r"\x9b31m\x90\x7f\x00\x08"),
    ("\u202egpj.exe\u2066\u200f\u061c", r"\u202egpj.exe\u2066\u200f\u061c"),
    ("a\u2028b\u2029c\x85d\x0bd", r"a\u2028b\u2029c\x85d\x0bd"),
    ("bom\ufeff zero\u200bwidth\xad", r"bom\ufeff zero\u200bwidth\xad"),
]


@pytest.mark.parametrize(("raw", "shown"), HOSTILE)
def test_what_steers_a_terminal_is_shown_as_its_escape(raw: str, shown: str) -> None:
    assert escape_one_line(raw) == shown
    assert escape_one_line(shown) == shown  # what was escaped once stays
    text = message("test.one-line", "{place}: unknown '{value}'", place="a.json:3", value=raw)
    assert text == f"a.json:3: unknown '{shown}'"
    assert text.fields["value"] == raw
    assert message("test.one-line", "{place}: unknown '{value}'", place=ValueError(raw), value=0) == (
        f"{shown}: unknown '0'"
    )
    assert json.loads(escape_json(json.dumps(raw, ensure_ascii=False))) == raw
    assert escape_one_line(escape_json(json.dumps(raw, ensure_ascii=False))) == escape_json(
        json.dumps(raw, ensure_ascii=False)
    )


@pytest.mark.parametrize(
    "text",
    ["한국어 질문", unicodedata.normalize("NFD", "한국어"),
     "ＡＢ１２　전각", "ㅤ\u115f\uffa0", "👨‍👩‍👧 ✔️ 🏴", "[image] :smile: \\n", "é 漢字"],
)  # fmt: skip
def test_letters_of_any_language_stay(text: str) -> None:
    assert escape_one_line(text) == text


def test_a_long_value_is_cut_with_its_length() -> None:
    assert cut_value("가" * MAX_VALUE_LENGTH) == "가" * MAX_VALUE_LENGTH
    text = message("test.long", "{file}: '{value}' is unknown", file="a.json", value="가" * 1_000_000)
    assert text == f"a.json: '{'가' * MAX_VALUE_LENGTH}… (1,000,000 characters)' is unknown"
    outer = message("test.outer", "not read: {problem}", problem=text)  # a message was cut when it was made
    assert outer == f"not read: {text}"


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    error = DataError(message("test.quoted", "unknown {name}", name="a\nkovqa: all is well\x1b[8m"))
    assert len(str(error).splitlines()) == 1
    assert "\x1b" not in str(error)


@pytest.mark.parametrize(
    "name", ["a\x1b[31mb'c\\", "한\n글.jpg", "\u202eabc", "a\x1b1", "평범 한 이름", "$(true)`true`"]
)
def test_a_quoted_name_is_printable_and_the_shell_reads_the_same_name(name: str) -> None:
    quoted = shell_quote(name)
    assert escape_one_line(quoted) == quoted
    done = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, text=True, check=True)
    assert done.stdout == name


@pytest.mark.parametrize("text", ["\ud83d", "a\udfffb=열", "\udced\udca0"])
def test_half_a_character_is_quoted_though_no_name_has_it(text: str) -> None:
    quoted = shell_quote(text)
    assert quoted.startswith("$'")
    assert quoted.isprintable()
