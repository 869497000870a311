"""Answer texts, lists of classes, soft labels."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from kovqa_core.data.answers import (
    choose_answer_classes,
    default_min_count,
    normalise_answer,
    normalise_vqav2,
    read_answers,
    soft_labels,
    soft_score,
    write_answers,
)
from kovqa_core.errors import DataError


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (" 예 ", "예"),
        ("노란색,  검은색", "노란색, 검은색"),
        ("STOP", "stop"),
        ("두\t줄\n입니다", "두 줄 입니다"),
        (unicodedata.normalize("NFD", "한국"), "한국"),
        ("\u3000", ""),
        ("", ""),
    ],
)
def test_normalise(raw: str, expected: str) -> None:
    assert normalise_answer(raw) == expected
    assert normalise_answer(normalise_answer(raw)) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("The Dog", "dog"), ("two", "2"), ("1,000", "1000"), ("3.5", "3.5"), ("5.p", "5p"),
        ("dont", "don't"), ("left-right", "left right"), ("예, 맞아요", "예 맞아요"), ("." * 40, "." * 8),
    ],
)  # fmt: skip
def test_normalise_vqav2(raw: str, expected: str) -> None:
    assert normalise_vqav2(raw) == expected


def test_vocabulary_orders_by_count_then_code_point() -> None:
    counts = Counter({"나": 3, "가": 3, "다": 5, "라": 1})
    assert choose_answer_classes(counts, 1) == ["다", "가", "나", "라"]
    assert choose_answer_classes(counts, 3) == ["다", "가", "나"]
    assert choose_answer_classes(counts, 6) == []


def test_default_min_count_is_5_from_ten_thousand_rows_on() -> None:
    assert [default_min_count(n) for n in (0, 9_999, 10_000, 10**7)] == [1, 1, 5, 5]


def test_a_list_of_classes_comes_back(tmp_path: Path) -> None:
    answers = ["예", "아니요", "노란색, 검은색", "8", "a b"]
    write_answers(tmp_path / "answers.txt", answers)
    assert read_answers(tmp_path / "answers.txt") == answers
    assert (tmp_path / "answers.txt").read_bytes() == "예\n아니요\n노란색, 검은색\n8\na b\n".encode()


@pytest.mark.parametrize("odd", ["두\n줄", "두\r\n줄", "두\u2028줄", "\x85", "{", " 예", "\\n"])
def test_a_list_of_classes_keeps_raw_answers(tmp_path: Path, odd: str) -> None:
    """An imported list is in the original's own words, and some have line breaks."""
    for answers in (["예", odd], [odd, "예"]):
        write_answers(tmp_path / "answers.txt", answers)
        assert read_answers(tmp_path / "answers.txt") == answers


def test_a_list_of_classes_with_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + "예\r\n아니요\r\n".encode())
    assert read_answers(tmp_path / "a.txt") == ["예", "아니요"]


def test_the_originals_list_of_classes_is_read_as_it_is(tmp_path: Path) -> None:
    """Blanks are part of its classes: a published model was trained on them."""
    (tmp_path / "answer2label.txt").write_text(
        '{"answer": "\\uc608", "label": 0}\n{"answer": "예 ", "label": 1}\n', encoding="utf-8"
    )
    assert read_answers(tmp_path / "answer2label.txt") == ["예", "예 "]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "lists no answers"),
        ("예\n아니요\n예\n", "'예' appears twice"),
        ('{"answer": "a", "label": 1}\n', ":1: expected"),
        ('{"answer": "a", "label": 0}\nb\n', ":2: expected"),
        ('{"answer": "a", "label": 0}\n{"label": 1}\n', ":2: expected"),
        ('{"answer": "a", "label": 0}\n[1]\n', ":2: expected"),
    ],
)
def test_a_list_of_classes_that_cannot_be_used(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "answers.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_answers(path)
    assert str(path) in caught.value.message
    assert expected in caught.value.message


def test_a_missing_list_of_classes_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"answers\.txt"):
        read_answers(tmp_path / "answers.txt")


def test_soft_score() -> None:
    assert [soft_score(n) for n in range(6)] == [0.0, 0.3, 0.6, 0.9, 1.0, 1.0]


def test_one_annotators_answer_counts_fully() -> None:
    assert soft_labels([" 예 "]) == {"예": 1.0}


def test_ten_annotators_answers_count_by_how_many_agree() -> None:
    annotations = ["예"] * 4 + ["예 ", "네", "네", "네", "아니요", " "]
    assert soft_labels(annotations) == {"예": 1.0, "네": 0.9, "아니요": 0.3}


@pytest.mark.parametrize("annotations", [[], [""], ["  ", "\t"]])
def test_no_answer_gives_no_label(annotations: list[str]) -> None:
    assert soft_labels(annotations) == {}
