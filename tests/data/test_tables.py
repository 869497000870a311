"""Tables as users have them: every encoding, every spreadsheet's habit; errors name file and line."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.data import json_stream
from kovqa_core.data.tables import cell_text, check_unique_id, read_table, text_lines
from kovqa_core.errors import DataError
from kovqa_core.messages import message

CSV = "id,image,question,answer\n1,가.jpg,무엇?,예\n2,나.jpg,뭐?,아니요\n"


def rows(folder: Path, content: str | bytes, name: str = "표.csv", **options: Any) -> list[tuple[int, Any]]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_table(path, **options))


def answers(folder: Path, content: str | bytes, name: str = "표.csv") -> list[Any]:
    return [row["answer"] for _, row in rows(folder, content, name)]


# --------------------------------------------------------------------------------- good data


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_encoding_and_line_end(tmp_path: Path, encoding: str, line_end: str) -> None:
    table = rows(tmp_path, CSV.replace("\n", line_end).encode(encoding))
    assert table[1] == (3, {"id": "2", "image": "나.jpg", "question": "뭐?", "answer": "아니요"})


def test_decomposed_column_names_and_texts(tmp_path: Path) -> None:
    table = rows(tmp_path, unicodedata.normalize("NFD", "질문\n무엇인가요?\n"))
    assert [cell_text(row["질문"]) for _, row in table] == ["무엇인가요?"]


STRANGE = ["NA", "None", "null", "nan", "N/A", "1", "1.0", "007", "1e5", "True", " 예 ", "-"]


def test_a_csv_keeps_what_looks_like_a_number_or_nothing(tmp_path: Path) -> None:
    assert answers(tmp_path, "id,answer\n" + "".join(f"{n},{a}\n" for n, a in enumerate(STRANGE))) == STRANGE


@pytest.mark.parametrize("name", ["표.jsonl", "표.json"])
def test_json_keeps_numbers_as_they_are_written(tmp_path: Path, name: str) -> None:
    lines = [
        '{"answer": "None"}',
        '{"answer": 1.0}',
        '{"answer": 1e5}',
        '{"answer": NaN}',
        '{"answer": null}',
    ]
    content = "[" + ",\n".join(lines) + "]" if name.endswith(".json") else "\n".join(lines)
    assert [cell_text(answer) for answer in answers(tmp_path, content, name)] == [
        "None",
        "1.0",
        "1e5",
        "",
        "",
    ]
    assert [line for line, _ in rows(tmp_path, content, name)] == [1, 2, 3, 4, 5]


def test_json_numbers_stay_numbers_where_they_are_only_carried_over(tmp_path: Path) -> None:
    assert rows(tmp_path, '{"n": 1.5}', "a.jsonl", as_text=False) == [(1, {"n": 1.5})]


def test_line_ends_in_cells_and_in_json_texts(tmp_path: Path) -> None:
    table = rows(tmp_path, 'id,answer\n1,"두\n줄, ""인용"""\n2,다음\n')
    assert table == [(2, {"id": "1", "answer": '두\n줄, "인용"'}), (4, {"id": "2", "answer": "다음"})]
    assert answers(tmp_path, '{"answer": "a\u2028b\\nc"}', "a.jsonl") == ["a\u2028b\nc"]


def test_tabs_blank_lines_and_columns_without_a_name(tmp_path: Path) -> None:
    table = rows(tmp_path, "\tid\tanswer\t\n\n0\t7\t예, 네\t\n\n", "표.tsv")
    assert table == [(3, {"id": "7", "answer": "예, 네"})]


def test_a_cell_of_any_sensible_length(tmp_path: Path) -> None:
    assert answers(tmp_path, f"id,answer\n1,{'가' * 300_000}\n") == ["가" * 300_000]


def test_a_table_is_read_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks smaller than a line, and a letter cut in two between them, change nothing."""
    expected = rows(tmp_path, CSV)
    monkeypatch.setattr(json_stream, "_READ_BLOCK_BYTES", 5)
    assert rows(tmp_path, CSV) == expected
    listed = rows(tmp_path, json.dumps([row for _, row in expected], ensure_ascii=False, indent=1), "표.json")
    assert [row for _, row in listed] == [row for _, row in expected]
    assert [line for line, _ in listed] == [2, 8]


# ----------------------------------------------------------------------- data that is refused


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "", "a.csv is empty"),
        ("a.csv", "\ufeff", "a.csv is empty"),
        ("a.jsonl", "", "a.jsonl is empty"),
        ("a.json", " ", "a.json is empty"),
        ("a.csv", "id,answer\n1,예\n2\n", "a.csv:3: 1 cells where the header names 2"),
        ("a.csv", "id,answer\n1,예\n2,예, 네\n", "a.csv:3: 3 cells where the header names 2"),
        ("a.csv", 'id,answer\n1,"두\n줄"\n2,예,네\n', "a.csv:4: 3 cells"),
        ("a.csv", 'id,answer\n1,예\n2,"끝이 없다\n3,예\n', "a.csv:3: not CSV"),
        ("a.csv", 'id,answer\n1,"예" 네\n', "a.csv:2: not CSV"),
        ("a.csv", "id,answer\n1,예\0\n", "a.csv:2: holds a NUL"),
        ("a.csv", "id,answer, answer\n1,예,네\n", "a.csv:1: column 'answer' appears twice"),
        ("a.jsonl", '{"id": 1}\n{"id": 2\n', "a.jsonl:2: not a JSON line"),
        ("a.jsonl", '{"id": 1}\n\n[2]\n', "a.jsonl:3: not a JSON object"),
        ("a.json", '"id"', "a.json:1: not a JSON list"),
        ("a.json", '[{"id": 1},\n {"id": }]', "a.json:2: not valid JSON"),
        ("a.json", '[{"id": 1},\n 2]', "a.json:2: not a JSON object"),
        ("a.csv", b"id,answer\n1,\xff\xff\n", "a.csv:2: neither UTF-8 nor CP949"),
        ("a.csv", "id,answer\n1,a\n".encode("utf-16")[2:], "a.csv:1: holds a NUL"),
    ],
)
def test_a_broken_table_is_named_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, expected: str
) -> None:
    with pytest.raises(DataError) as caught:
        rows(tmp_path, content, name)
    assert expected in caught.value.message
    assert str(tmp_path) in caught.value.message


def test_a_cell_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "MAX_CELL_CHARS", 1000)
    monkeypatch.setattr(json_stream, "_READ_BLOCK_BYTES", 100)
    with pytest.raises(DataError, match=r"표\.csv:3: not CSV .*field limit"):
        rows(tmp_path, 'id,answer\n1,예\n2,"' + "가\n" * 1001 + '"\n')
    with pytest.raises(DataError, match=r"표\.jsonl:1: a line of more than 1,000 characters"):
        rows(tmp_path, "가" * 5000, "표.jsonl")


def test_a_missing_column_is_named_with_what_there_is(tmp_path: Path) -> None:
    required = {"answer": ("answer", "answers")}
    with pytest.raises(DataError) as caught:
        rows(
            tmp_path,
            "id,Anser\n1,예\n",
            required={**required, "image": ("image", "사진")},
            hint=lambda columns: message("test.hint", "{columns}", columns=columns),
        )
    assert "표.csv:1: no column 'answer'; it has id, Anser, did you mean 'Anser'?" in caught.value.message
    assert caught.value.hint == "{'answer': 'Anser', 'image': 'NAME'}"
    with pytest.raises(DataError, match=r"표\.jsonl:2: no column 'answer'; it has id"):
        rows(tmp_path, '{"answers": ["예"]}\n{"id": 1}\n', "표.jsonl", required=required)


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*없음\.csv"):
        list(read_table(tmp_path / "없음.csv"))
    with pytest.raises(DataError, match="is a folder"):
        list(read_table(tmp_path))


def test_an_id_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    seen: dict[str, int] = {}
    check_unique_id("a", 2, seen, tmp_path)
    with pytest.raises(DataError, match=":7: id a was already in line 2"):
        check_unique_id("a", 7, seen, tmp_path)
