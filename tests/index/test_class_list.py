"""Lists of classes that users give to an index: their form, their labels, and classes that no row reaches."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from kovqa_core.data.answers import number_classes, read_answers, write_answers
from kovqa_core.errors import DataError
from kovqa_core.index.build import build_index
from kovqa_core.index.class_list import (
    SomeClasses,
    classes_without_rows,
    read_class_list,
    unreachable_classes,
)
from kovqa_core.index.report import read_report

from kovqa_cli.output.index import _report_notes
from tests.index.raw_data import touch

NFD = unicodedata.normalize("NFD", "고양이")
LISTED = ["개", "고양이", "흰 색", "No"]


@pytest.mark.parametrize(
    "content",
    [
        "개\n고양이\n흰 색\nNo\n".encode(),
        "\n개\n\n고양이\n \n흰 색\nNo\n\n\n".encode(),  # blank lines are no classes
        f" 개\n{NFD}\t\n흰  색\n　No　".encode(),  # blanks around it, two inside, an ideographic one; NFD
        "\ufeff개\r\n고양이\r\n흰 색\r\nNo".encode(),
        "개\n고양이\n흰 색\nNo\n".encode("cp949"),
    ],
)
def test_a_list_gets_the_form_of_an_indexs_answers(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "l.txt").write_bytes(content)
    assert read_class_list(tmp_path / "l.txt") == LISTED


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("개\n\n 개\n", "l.txt:3: '개' is already in line 1"),
        (f"고양이\n{NFD}\n", "l.txt:2: '고양이' is already in line 1"),
        ("a b\nc\na  b\n", "l.txt:3: 'a b' is already in line 1"),
        ("\n \n\u3000\n", "l.txt lists no answers"),
        ("", "l.txt lists no answers"),
    ],
)
def test_a_list_that_gives_no_labels(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "l.txt").write_text(content, "utf-8")
    with pytest.raises(DataError) as caught:
        read_class_list(tmp_path / "l.txt")
    assert says in caught.value.message


RAW = ["예", "예 ", " 개", "개", "Yes", "yes", NFD, "두\n줄", ""]


def test_a_trained_models_list_keeps_its_labels(tmp_path: Path) -> None:
    """`answer2label.txt` in any name, blank lines between its lines; an index's own list is one, wherever it is."""
    rows = [json.dumps({"answer": answer, "label": label}) for label, answer in enumerate(RAW)]
    (tmp_path / "labels.txt").write_text("\n\n" + "\n\n".join(rows) + "\n\n", "utf-8")
    assert read_class_list(tmp_path / "labels.txt") == RAW
    write_answers(tmp_path / "answers.txt", RAW[:4])  # blanks around, but no line end
    assert read_class_list(tmp_path / "answers.txt") == RAW[:4]
    # Earlier versions wrote such a list one answer a line: beside an index it is known to be one.
    (tmp_path / "answers.txt").write_text(" 개\n개\n", "utf-8")
    with pytest.raises(DataError, match="already in line 1"):
        read_class_list(tmp_path / "answers.txt")
    (tmp_path / "index.json").write_text("{}", "utf-8")
    assert read_class_list(tmp_path / "answers.txt") == read_class_list(tmp_path) == [" 개", "개"]


def test_classes_that_no_answer_can_be() -> None:
    """Answers of an index have no blanks around them; " 개" is found all the same where no other class is 개."""
    label_of = number_classes(RAW)
    assert unreachable_classes(RAW, label_of) == ["예 ", " 개", ""]
    assert unreachable_classes(["개", " 개"], number_classes(["개", " 개"])) == [" 개"]
    assert unreachable_classes([" 개"], number_classes([" 개"])) == []
    assert unreachable_classes(["Yes", "yes", " YES"], number_classes(["Yes", "yes", " YES"])) == [" YES"]
    assert classes_without_rows(RAW, label_of, [["예"], ["개", "YES"]]) == ["Yes", NFD, "두\n줄"]


def test_an_index_says_which_listed_classes_its_rows_do_not_reach(tmp_path: Path) -> None:
    touch(tmp_path, ["a.jpg"])
    answers = ["개", "개", "고양이", "말"]
    (tmp_path / "t.csv").write_text(
        "\n".join(["image,question,answer,split", *(f"a.jpg,?,{answer},train" for answer in answers)]),
        "utf-8",
    )
    classes = ["고양이", "개", " 개", "소", "닭"]
    report = build_index("table", tmp_path / "t.csv", None, tmp_path / "i", classes=classes)
    assert report.counts.unreachable_classes == SomeClasses(1, " 개")
    assert report.counts.classes_without_rows == SomeClasses(2, "소")
    assert " answers, as listed" in "\n".join(_report_notes(report)), "not: each seen at least 0×"
    assert read_report(tmp_path / "i").counts == report.counts
    written = json.loads((tmp_path / "i" / "index.json").read_text("utf-8"))
    assert written["unreachable_answers"] == {"count": 1, "first": " 개"}
    # Round trip: its own list gives the same classes in the same order, also as a copy elsewhere.
    (tmp_path / "copy.txt").write_bytes((tmp_path / "i" / "answers.txt").read_bytes())
    for list_file in (tmp_path / "i" / "answers.txt", tmp_path / "i", tmp_path / "copy.txt"):
        assert read_class_list(list_file) == classes
    build_index(
        "table",
        tmp_path / "t.csv",
        None,
        tmp_path / "j",
        classes=read_class_list(tmp_path / "copy.txt"),
    )
    assert read_answers(tmp_path / "j" / "answers.txt") == classes
    assert (tmp_path / "j" / "train.jsonl").read_bytes() == (tmp_path / "i" / "train.jsonl").read_bytes()
    plain = build_index("table", tmp_path / "t.csv", None, tmp_path / "k")
    assert "unreachable_answers" not in plain.json_fields()
