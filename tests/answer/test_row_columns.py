"""A table to answer is read as `kovqa index table` reads it: columns, ids, texts; what else it has is handed on."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pytest
from kovqa_core.answer.question_rows import QuestionRow, read_question_table
from kovqa_core.data.tables import COLUMN_ALIASES
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import open_index
from kovqa_core.index.shards import SourceOptions
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one image."""
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    return tmp_path


def read(
    folder: Path, name: str, text: str, columns: Mapping[str, str] | None = None, task: str = "vqa"
) -> list[QuestionRow]:
    (folder / name).write_text(text, "utf-8")
    return read_question_table(folder / name, task, columns=columns)


KOREAN_COLUMNS = {"id": "번호", "image": "사진", "question": "질문", "answer": "정답"}


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("a.csv", "id,image,question,answer,split\n1 ,1.png,q,a,test\n 007,1.png, 뭐? ,a,test\n", {}),
        ("b.csv", "ID,img_path,question,answer,split\nTEST_0,1.png,q,a,test\n", {}),  # Dacon's names
        ("c.csv", "번호,사진,질문,정답,split\n3,1.png,q,a,test\n", KOREAN_COLUMNS),
        ("d.csv", "image,question,answer,split\n1.png,q,a,test\n1.png,r,a,test\n", {}),  # no ids: the lines
        ("e.jsonl", '{"id": 1, "image": "1", "question": "q", "split": "test"}\n', {}),
        ("j.jsonl", '{"id": "1", "image": "1", "question": "q", "split": "test"}\n', {}),
        ("f.jsonl", '{"qid": 1.0, "image": 1, "question": "1.0", "split": "test"}\n', {}),
        ("g.json", '[{"question_id": " 가 ", "image_path": "1", "question": "q", "split": "test"}]', {}),
        ("h.tsv", unicodedata.normalize("NFD", "id\timage\tquestion\tsplit\n가\t1.png\t뭐?\ttest\n"), {}),
        ("i.jsonl", '{"id": "", "ID": 9, "image": "1.png", "question": "q", "split": "test"}\n', {}),
    ],
)  # fmt: skip
def test_ids_and_texts_are_those_of_the_index(
    folder: Path, name: str, text: str, columns: dict[str, str]
) -> None:
    rows = read(folder, name, text, columns)
    build_index("table", folder / name, None, folder / "index", options=SourceOptions(columns))
    indexed = [*open_index(folder / "index").split("test")]
    asked = [(row.example.id, row.example.image, row.example.question) for row in rows]
    assert asked == [(each.id, each.image, each.question) for each in indexed]


def test_a_column_that_is_missing_is_named_and_so_is_the_option(folder: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv:1: no column 'question'; it has id, image, 물음") as caught:
        read(folder, "t.csv", "id,image,물음\n1,1.png,q\n")
    assert "--column question=" in caught.value.hint
    with pytest.raises(DataError, match="did you mean 'img'") as caught:
        read(folder, "t.csv", "id,img\n1,1.png\n", task="caption")
    assert "--column image=img" in caught.value.hint
    with pytest.raises(DataError, match="no column '번호'"):
        read(folder, "t.csv", "id,image,question\n1,1.png,q\n", {"id": "번호"})
    with pytest.raises(SettingsError, match="unknown column 'questions'; did you mean question"):
        read(folder, "t.csv", "id,image,question\n1,1.png,q\n", {"questions": "question"})


def test_a_row_that_asks_nothing_is_a_fault_of_that_row(folder: Path) -> None:
    rows = read(folder, "t.csv", "id,image,question\n1,1.png, \n2,,q\n3,1.png,q\n")
    assert [row.fault and row.fault.split("t.csv:")[1] for row in rows] == [
        "2: no question",
        "3: no image",
        "",
    ]
    (caption,) = read(folder, "c.csv", "id,image,question\n1,1.png,\n", task="caption")
    assert not caption.fault


def test_columns_that_are_handed_on_keep_their_json_types(folder: Path) -> None:
    extra = {
        "n": 1,
        "x": 1.5,
        "big": 10**30,
        "yes": True,
        "none": None,
        "list": [1, "1", {"a": 2}],
        "text": "01",
    }
    line = json.dumps({"id": 5, "image": "1.png", "question": "q", **extra}, ensure_ascii=False)
    (row,) = read(folder, "t.jsonl", line + "\n")
    assert row.extra_columns == extra
    assert [type(value) for value in row.extra_columns.values()] == [type(value) for value in extra.values()]
    assert list(row.all_columns) == ["id", "image", "question", *extra]


def test_an_index_hands_its_tables_columns_on(folder: Path) -> None:
    text = (
        "출처,ID,image,question,answer,split,choices,context,hint,번호\n"
        "책,1,1.png,q,a,test,a|b,글을 읽으세요,힌트,01\n"
    )
    (row,) = read(folder, "t.csv", text)
    build_index("table", folder / "t.csv", None, folder / "index")
    (indexed,) = read_question_table(folder / "index" / "test.jsonl")
    for each in (row, indexed):
        assert each.example.context == "글을 읽으세요\n힌트"
        assert list(each.example.choices) == ["a", "b"]
        assert {"출처": "책", "번호": "01"}.items() <= each.extra_columns.items()
    assert list(row.all_columns) == ["출처", "id", *text.split("\n")[0].split(",")[2:]]
    assert list(indexed.extra_columns)[-2:] == ["출처", "번호"]
    assert not {"answers", "columns", "captions"} & indexed.extra_columns.keys()


def test_choices_nobody_asks_for_stop_nothing(folder: Path) -> None:
    (row,) = read(folder, "t.csv", "image,question,options\n1.png,q,없음\n")
    assert row.example.choices == ()
    assert row.extra_columns["options"] == "없음"
    with pytest.raises(DataError, match=r"t\.csv:2, id 2: 1 choices: 없음"):
        read_question_table(folder / "t.csv", choices=True)


def test_every_name_of_a_column_is_one_of_ours_alone() -> None:
    names = [name for aliases in COLUMN_ALIASES.values() for name in aliases]
    assert len(names) == len(set(names))


def test_a_data_sets_own_nested_file_names_the_command_that_reads_it(folder: Path) -> None:
    nia = {"annotations": [{"IMAGE_NAME": "1.png", "questions": [{"question_ko": "뭐?"}]}]}
    with pytest.raises(DataError, match="no column 'image'") as caught:
        read(folder, "test.json", json.dumps(nia))
    assert "kovqa index nia" in caught.value.hint
    vqav2 = {"questions": [{"question_id": 420, "image_id": 42, "question": "What?"}]}
    with pytest.raises(DataError, match="its images are numbers \\(42 and others\\)") as caught:
        read(folder, "v2.json", json.dumps(vqav2))
    assert "kovqa index SOURCE" in caught.value.hint
    (row,) = read(folder, "q.json", '[{"question_id": 420, "image_id": 1, "question": "What?"}]')
    assert row.example.image == "1.png", "a number that is a file's name is one"
