"""Columns of choices in a table: one for each choice, answers by letter or number, the choice that means unknown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.answer.question_rows import read_question_table
from kovqa_core.data.choice_columns import counts_from_zero, named_choice, unknown_by_wording
from kovqa_core.data.decoding import parse_choices
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError

from tests.index.raw_data import index, left_out_rows, touch, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "원본"
    touch(folder, ["a.jpg"])
    return folder


def examples_of(table: Path, split: str = "train") -> list[Example]:
    return index(table, "table")[0][split]


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("소", 1), ("B", 1), ("b", 1), ("(b)", 1), ("C.", 2), ("③", 2), ("2", 1), ("3번", 2),
        ("Ｂ", 1), ("（ｂ）", 1), ("２", 1), ("2.0", 1), ("2.5", None),
        ("D", None), ("4", None), ("AB", None), ("말", None), ("", None), ("0", None),
    ],
)  # fmt: skip
def test_a_cell_names_a_choice_by_text_letter_or_number(cell: str, number: int | None) -> None:
    assert named_choice(["개", "소", "닭"], cell) == number


def test_a_text_wins_over_a_letter_and_over_a_number() -> None:
    assert named_choice(["B", "A", "C"], "A") == 1
    assert named_choice(["3", "1", "2"], "1") == 1
    assert named_choice(["3", "5", "7"], "1") is None  # among numbers, 1 is a wrong answer
    assert named_choice(["1.5", "2.5"], "2") is None
    assert named_choice(["2.0", "1.0"], "1.0") == 1
    assert (
        counts_from_zero(["개", "소"], "0.0")
        and counts_from_zero(["개", "소"], "0")
        and not counts_from_zero(["1", "2"], "0")
    )


def test_one_column_for_each_choice(root: Path) -> None:
    """MMBench's form; a row may have fewer choices than its neighbours, and a column A that is the answer is none."""
    rows = "a.jpg,뭐?,{answer},train,{choices},1\n"
    answers = [("C", "개,소,닭,말"), ("b", "개,소,,"), ("소", "개,소,닭,"), ("A", "C,B,A,"), ("A", "개,,닭,")]
    write(
        root / "표.csv",
        "image,question,answer,split,A,B,C,D,쪽\n"
        + "".join(rows.format(answer=answer, choices=choices) for answer, choices in answers),
    )
    examples, report = index(root / "표.csv", "table")
    assert [list(each.answers) for each in examples["train"]] == [["닭"], ["소"], ["소"], ["A"]]
    assert [list(each.choices) for each in examples["train"]] == [
        ["개", "소", "닭", "말"], ["개", "소"], ["개", "소", "닭"], ["C", "B", "A"]
    ]  # fmt: skip
    assert all(each.columns == {"쪽": "1"} for each in examples["train"])
    assert report.counts.extras.text_and_letter == {"train": 1}
    assert left_out_rows(report) == {"choices unusable": [f"{root / '표.csv'}:6, id 6: 3 choices: 개, , 닭"]}
    asked = read_question_table(root / "표.csv", choices=False)
    assert [list(row.example.choices) for row in asked][:2] == [["개", "소", "닭", "말"], ["개", "소"]]
    with pytest.raises(DataError, match="3 choices: 개, , 닭"):
        read_question_table(root / "표.csv", choices=True)
    write(root / "문답.csv", "image,Q,A,split,B\na.jpg,뭐?,개,train,b\n")
    examples, _ = index(root / "문답.csv", "table", columns={"question": "Q", "answer": "A"})
    assert [(each.choices, each.columns) for each in examples["train"]] == [((), {"B": "b"})]


def test_bbq_counts_its_label_from_zero(root: Path) -> None:
    row = {
        "image": "a.jpg",
        "question": "who?",
        "split": "train",
        "ans0": "Kim",
        "ans1": "Can't answer",
        "ans2": "Lee",
    }
    labels = [2, 0, 1, 3, "x"]
    write(root / "bbq.jsonl", "\n".join(json.dumps({**row, "label": label}) for label in labels))
    examples, report = index(root / "bbq.jsonl", "table")
    assert [list(each.answers) for each in examples["train"]] == [["Lee"], ["Kim"], ["Can't answer"]]
    assert {each.unknown for each in examples["train"]} == {"Can't answer"}
    assert report.counts.extras.unknown_choices == {"train": 3}
    assert [text.partition(", id")[2] for text in left_out_rows(report)["choices unusable"]] == [
        f" {n}: label '{label}' is none of the choices: Kim, Can't answer, Lee"
        for n, label in ((4, "3"), (5, "x"))
    ]
    write(root / "0.jsonl", json.dumps({**row, "answer": 0}))
    with pytest.raises(DataError, match="choices are counted from 1") as caught:
        index(root / "0.jsonl", "table")
    assert caught.value.hint == "numbers that count from 0: --column label=answer"
    again = index(root / "0.jsonl", "table", columns={"label": "answer", "answer": "없음"})
    assert [list(each.answers) for each in again[0]["train"]] == [["Kim"]]
    # Without choices a label is a column as any other.
    write(root / "표.csv", "image,question,answer,split,label,unknown\na.jpg,뭐?,개,train,7,x\n")
    assert examples_of(root / "표.csv")[0].columns == {"label": "7", "unknown": "x"}


def test_the_unknown_choice_is_named_or_known_by_its_wording(root: Path) -> None:
    """In the form of Korean contests: a Python list, as pandas writes one into a CSV."""
    write(
        root / "표.csv",
        "ID,image,context,question,choices,answer,split\n"
        "T1,a.jpg,둘이 왔다.,누구?,\"['갑', '알 수 없음', '을']\",알 수 없음,train\n"
        'T2,a.jpg,둘이 왔다.,누구?,"[\'갑\', ""을\'s""]",A,train\n'
        "T3,a.jpg,,누구?,모름|알 수 없음|갑,갑,train\n",
    )
    examples = examples_of(root / "표.csv")
    assert [(each.unknown, list(each.answers)) for each in examples] == [
        ("알 수 없음", ["알 수 없음"]), ("", ["갑"]), ("", ["갑"])
    ]  # fmt: skip
    assert [row.example.unknown for row in read_question_table(root / "표.csv", choices=True)] == [
        "알 수 없음",
        "",
        "",
    ]
    write(
        root / "이름.csv",
        "image,question,choices,answer,split,unknown\n"
        "a.jpg,누구?,갑|을|글쎄,A,train,C\na.jpg,누구야?,갑|을|모름,갑,train,\na.jpg,왜?,갑|을,갑,train,병\n",
    )
    examples, report = index(root / "이름.csv", "table")
    assert [each.unknown for each in examples["train"]] == ["글쎄", ""]
    assert left_out_rows(report)["choices unusable"][0].endswith(
        "unknown '병' is none of the choices: 갑, 을"
    )
    assert unknown_by_wording(["Kim", "Cannot be determined."]) == "Cannot be determined."


def test_choices_that_no_answer_tells_apart_are_left_out(root: Path) -> None:
    rows = "".join(f"a.jpg,{n}?,Red,train,{cell}\n" for n, cell in enumerate(["Red|blue"] * 19 + ["Red|red"]))
    write(root / "표.csv", f"image,question,answer,split,choices\n{rows}")
    _, report = index(root / "표.csv", "table")
    assert left_out_rows(report) == {
        "choices unusable": [f"{root / '표.csv'}:21: two choices are one answer: Red, red"]
    }


@pytest.mark.parametrize(
    "cell", ["['a', 'b'", "[" * 5000, "['a' 'b']", "[__import__('os'), 'b']", "['|', 'a']"]
)
def test_a_list_that_python_does_not_read_is_no_program(cell: str) -> None:
    if cell == "['|', 'a']":
        assert parse_choices(cell, "t.csv:2") == ("|", "a")
        return
    with pytest.raises(DataError, match=r"t\.csv:2"):
        parse_choices(cell, "t.csv:2")
