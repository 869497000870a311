"""Users' tables: which columns, splits and cells are taken, what is left out and why."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError, KovqaError, SettingsError
from kovqa_core.index.build import build_index
from kovqa_core.index.row_extras import RowExtras

from tests.index.raw_data import index, left_out_counts, left_out_rows, touch, write

# ------------------------------------------------------------------------------------------- table


def test_a_table_with_columns_of_its_own(root: Path) -> None:
    write(root / "표.csv", "번호,사진,질문,정답,나눔\n1,그림/a.jpg,뭐?,NA,train\n2,그림\\b,뭐?,,TEST\n")
    touch(root / "그림", ["a.jpg", unicodedata.normalize("NFD", "b.jpg")])
    columns = {"id": "번호", "image": "사진", "question": "질문", "answer": "정답", "split": "나눔"}
    examples, report = index(root / "표.csv", "table", columns=columns)
    assert examples["train"] == [Example("1", "그림/a.jpg", "뭐?", {"NA": 1.0})]
    assert examples["test"] == [Example("2", "그림/b.jpg", "뭐?")]
    assert report.options["columns"] == columns


def test_a_json_table_may_have_many_annotators_and_captions(root: Path) -> None:
    lines = [
        {
            "image": "a.jpg",
            "question": "몇?",
            "answers": ["1.0", 1.0, "None"],
            "split": "train",
            "kind": "수",
        },
        {"image": "a.jpg", "question": "몇?", "split": "test"},
        {"image": "a.jpg", "caption": ["개 한 마리"], "split": "dev"},
    ]
    write(root / "표.jsonl", "\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    touch(root, ["a.jpg"])
    examples, _ = index(root / "표.jsonl", "table")
    assert examples["train"] == [
        Example("1", "a.jpg", "몇?", {"1.0": 2 / 3, "None": 1 / 3}, "수", annotations=["1.0", "1.0", "None"])
    ]
    assert examples["test"] == [Example("2", "a.jpg", "몇?")]
    assert examples["val"] == [Example("3", "a.jpg", "", captions=["개 한 마리"])]


def test_a_table_without_splits_is_split_by_image(root: Path) -> None:
    # One image under several spellings: still one image, in one split.
    spellings = ("p{}.jpg", "p{}", "./p{}.jpg")
    lines = [f"{spellings[n % 3].format(n // 3)},뭐?,예" for n in range(300)]
    write(root / "표.csv", "\n".join(["image,question,answer", *lines]))
    touch(root, [f"p{n}.jpg" for n in range(100)])
    examples, report = index(root / "표.csv", "table")
    assert report.counts.rows["train"] + report.counts.rows["val"] == 300
    assert 4 <= report.counts.images["val"] <= 18
    assert report.counts.images_shared_with_train["val"] == 0
    assert examples["train"][0].id == "2", "without ids, the line"


def test_rows_of_a_table_that_are_left_out_are_named_by_line(root: Path) -> None:
    write(root / "표.csv", "image,question,answer\na.jpg,뭐?,예\nb.jpg,뭐?,예\na.jpg,,예\na.jpg,뭐?,\n")
    touch(root, ["a.jpg"])
    _, report = index(root / "표.csv", "table")
    file = root / "표.csv"
    assert left_out_rows(report) == {
        "picture missing": [f"{file}:3: b.jpg"],
        "question missing": [f"{file}:4"],
        "answer empty": [f"{file}:5"],
    }


@pytest.mark.parametrize(
    ("content", "columns", "expected", "hint"),
    [
        ("image,question,참값\n", {}, "표.csv:1: no column 'answer'; it has image, question, 참값", "answer=NAME"),
        ("img,question,answer\n", {}, "표.csv:1: no column 'image'", "--column image=img"),
        ("image,question,answer\n", {"id": "번호"}, "표.csv:1: no column '번호'", "--column id=NAME"),
        ("image,question,answer\n", {"imag": "a"}, "unknown column 'imag'; did you mean image", ""),
        ("image,question,answer,split\na.jpg,뭐?,예,보류\n", {}, "표.csv:2: unknown split '보류'", "known: train"),
        ("image,question,answer\n", {}, "no usable row", ""),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_is_explained(
    root: Path, content: str, columns: dict[str, str], expected: str, hint: str
) -> None:
    write(root / "표.csv", content)
    touch(root, ["a.jpg"])
    with pytest.raises(KovqaError) as caught:
        index(root / "표.csv", "table", columns=columns)
    assert expected in caught.value.message
    assert hint in caught.value.hint
    assert not (root.parent / "index").exists()


def test_a_cell_of_json_that_is_no_text_is_refused(root: Path) -> None:
    write(root / "표.json", '[{"image": "a.jpg",\n "question": {"ko": "뭐?"}, "answer": "예"}]')
    with pytest.raises(DataError, match=r"표\.json:1: question is a dict, not a text"):
        index(root / "표.json", "table")


def test_half_a_character_in_json_is_left_out(root: Path) -> None:
    lines = [
        '{"image": "\\ud83d.jpg", "question": "뭐?", "answer": "예"}',
        '{"image": "a.jpg", "question": "뭐?", "answer": "예"}',
    ]
    write(root / "표.jsonl", "\n".join(lines))
    touch(root, ["a.jpg"])
    examples, report = index(root / "표.jsonl", "table")
    assert sum(len(split) for split in examples.values()) == 1
    assert left_out_counts(report) == {"picture missing": 1}


def test_an_index_does_not_replace_the_folder_of_its_table(root: Path, tmp_path: Path) -> None:
    write(root / "표.csv", "image,question,answer\na.jpg,뭐?,예\n")
    touch(root, ["a.jpg"])
    build_index("table", root / "표.csv", None, tmp_path / "idx")
    split = next((tmp_path / "idx").glob("*.jsonl"))
    (tmp_path / "link").symlink_to(tmp_path / "idx")
    before = split.read_bytes()
    for folder in (tmp_path / "idx", tmp_path / "link", tmp_path):
        with pytest.raises(SettingsError, match="which would be replaced"):
            build_index("table", split, root, folder)
    assert split.read_bytes() == before


def test_choices_context_and_unknown_columns_stay(root: Path) -> None:
    """As they are written, and the report counts them; what no row has stands nowhere."""
    by_letter = {"A": "개", "B": "소"}
    lines = [
        {"image": "a.jpg", "question": "뭐?", "answer": "개", "split": "train", "choices": ["개", "소"], "hint": "발이 넷"},
        {"image": "a.jpg", "question": "뭐라고?", "answer": "말", "split": "train", "options": "개| 소", "쪽": 3},
        {"image": "a.jpg", "question": "또?", "answer": "개", "split": "val", "context": "글", "choices": by_letter},
        {"image": "a.jpg", "question": "왜?", "answer": "개", "split": "val", "choices": [], "출처": None},
    ]  # fmt: skip
    write(root / "표.jsonl", "\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    touch(root, ["a.jpg"])
    examples, report = index(root / "표.jsonl", "table")
    assert [list(each.choices) for each in examples["train"]] == [["개", "소"], ["개", "소"]]
    assert [each.context for each in examples["train"]] == ["발이 넷", ""]
    assert [dict(each.columns) for each in examples["train"]] == [{}, {"쪽": 3}]
    assert [list(each.choices) for each in examples["val"]] == [["개", "소"], []]
    assert [dict(each.columns) for each in examples["val"]] == [{}, {"출처": None}]
    extras = report.counts.extras
    assert extras == RowExtras({"train": 2, "val": 1}, {"train": 1, "val": 1}, {"train": 1}, ("쪽", "출처"))
    write(root / "빈.csv", "image,question,answer\na.jpg,뭐?,개\n")
    assert index(root / "빈.csv", "table")[1].counts.extras == RowExtras()


def test_choices_that_cannot_be_used_are_faults_of_their_rows(root: Path) -> None:
    rows = "".join(f"a.jpg,{n}?,개,{cell}\n" for n, cell in enumerate(["개|소"] * 19 + ["개|개"]))
    write(root / "표.csv", f"image,question,answer,보기\n{rows}")
    touch(root, ["a.jpg"])
    _, report = index(root / "표.csv", "table", columns={"choices": "보기"})
    assert left_out_rows(report) == {"choices unusable": [f"{root / '표.csv'}:21, id 21: 2 choices: 개, 개"]}


def test_the_rows_of_a_list_in_one_line_are_told_apart(root: Path) -> None:
    rows = [{"image": "a.jpg", "question": "뭐?", "answer": answer, "split": "train"} for answer in "가나다"]
    talk = [{"from": "human", "value": "몇?"}, {"from": "gpt", "value": "하나"}]
    talks = [{"image": "a.jpg", "conversations": talk * turns, "split": "test"} for turns in (1, 2)]
    listed = json.dumps([*rows, *talks], ensure_ascii=False)
    touch(root, ["a.jpg"])
    in_one_line, in_many = ["1", "1-2", "1-3"], ["1", "2", "3"]
    for text, train_ids, test_ids in (
        (listed, in_one_line, ["1-4", "1-5/1", "1-5/2"]),
        (json.dumps({"info": {}, "rows": [*rows, *talks]}), in_one_line, ["1-4", "1-5/1", "1-5/2"]),
        (listed.replace('}, {"image', '},\n{"image'), in_many, ["4", "5/1", "5/2"]),
    ):
        write(root / "표.json", text)
        examples, report = index(root / "표.json", "table")
        assert [example.id for example in examples["train"]] == train_ids
        assert [example.id for example in examples["test"]] == test_ids
        assert not report.counts.left_out


def test_splits_in_korean_are_known(root: Path) -> None:
    words = {
        "학습": "train",
        "훈련용": "train",
        "검증": "val",
        "시험": "test",
        "평가": "test",
        "테스트": "test",
    }
    lines = [
        f"a.jpg,{word}?,예,{unicodedata.normalize(form, word)}" for word in words for form in ("NFC", "NFD")
    ]
    write(root / "표.csv", "\n".join(["image,question,answer,split", *lines]))
    touch(root, ["a.jpg"])
    examples, _ = index(root / "표.csv", "table")
    for split, rows in examples.items():
        assert {example.question[:-1] for example in rows} == {
            w for w, said in words.items() if said == split
        }


def test_rows_of_a_csv_that_only_look_empty_are_passed_over(root: Path) -> None:
    write(
        root / "표.csv",
        "id,image,question,answer,split\n1,a.jpg,뭐?,예,train\n,,,,\n ,\t, ,,\n,,\n2,,뭐?,예,train\n",
    )
    touch(root, ["a.jpg"])
    _, report = index(root / "표.csv", "table")
    assert left_out_counts(report) == {"no picture named": 1}
