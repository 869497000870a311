"""A table is read by what is in it, whatever its suffix says; what is none is named as what it is."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.data import json_stream
from kovqa_core.data.tables import read_table, table_notes
from kovqa_core.errors import DataError

HEADER = ("id", "image", "question", "answer")
ROWS = [("1", "가.jpg", "무엇?", "예"), ("2", "나.jpg", "뭐, 이거?", "아니요")]
EXPECTED = [dict(zip(HEADER, row, strict=True)) for row in ROWS]


def cells(delimiter: str, line_end: str = "\n", first: str = "") -> str:
    lines = [HEADER, *ROWS]
    quoted = ([f'"{cell}"' if delimiter in cell else cell for cell in line] for line in lines)
    return first + "".join(delimiter.join(line) + line_end for line in quoted)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(folder: Path, name: str, content: str | bytes, **options: Any) -> list[Any]:
    return [row for _, row in read_table(write(folder, name, content), **options)]


JSON_ROWS = json.dumps(EXPECTED, ensure_ascii=False)
JSON_LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in EXPECTED)
TABLES: dict[str, tuple[str, str | bytes]] = {
    "semicolons, as Excel writes in many countries": ("a.csv", cells(";")),
    "semicolons behind Excel's own line": ("a.csv", cells(";", first="sep=;\r\n")),
    "Excel's own line in quotation marks": ("a.csv", cells("\t", first='"sep=\t"\n')),
    "tabs in a .csv": ("a.csv", cells("\t")),
    "commas in a .tsv": ("a.tsv", cells(",")),
    "Excel's Unicode text": ("a.txt", cells("\t", "\r\n").encode("utf-16")),
    "UTF-16 in a .csv": ("a.csv", cells(",", "\r\n").encode("utf-16")),
    "UTF-8 with a mark": ("a.csv", cells(";").encode("utf-8-sig")),
    "CP949 with semicolons": ("a.csv", cells(";", "\r\n").encode("cp949")),
    "lines of an old Mac": ("a.csv", cells(",", "\r")),
    "lines of an old Mac in CP949": ("a.csv", cells("\t", "\r").encode("cp949")),
    "a packed .csv": ("a.csv.gz", gzip.compress(cells(",").encode())),
    "a packed .tsv in UTF-16": ("a.tsv.gz", gzip.compress(cells("\t").encode("utf-16"))),
    "packed JSON lines": ("a.jsonl.gz", gzip.compress(JSON_LINES.encode())),
    "packed JSON under the name of one that is not": ("a.json", gzip.compress(JSON_ROWS.encode())),
    "JSON lines in a .json": ("a.json", JSON_LINES),
    "one JSON line in a .json": ("a.json", JSON_LINES.splitlines()[0]),
    "a JSON list in a .jsonl": ("a.jsonl", JSON_ROWS),
    "a JSON list in UTF-16": ("a.json", JSON_ROWS.encode("utf-16")),
    "JSON lines in a .csv": ("a.csv", JSON_LINES),
    "a JSON list in a .txt": ("a.txt", JSON_ROWS),
    "JSON lines of an old Mac": ("a.jsonl", JSON_LINES.replace("\n", "\r")),
    "a list under a name": ("a.json", '{"data": ' + JSON_ROWS + "}"),
    "a list under a name, beside other things": (
        "a.json", json.dumps({"version": 1, "info": {}, "tags": ["x"], "annotations": EXPECTED}, indent=1),
    ),
    "a list under a name in a .jsonl, on one line": ("a.jsonl", json.dumps({"rows": EXPECTED}) + "\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_a_table_is_read_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    name, content = TABLES[case]
    expected = EXPECTED[:1] if case.startswith("one") else EXPECTED
    assert read(tmp_path, name, content) == expected
    monkeypatch.setattr(json_stream, "_READ_BLOCK_BYTES", 7)
    assert read(tmp_path, name, content) == expected


def test_rows_have_the_numbers_of_their_lines(tmp_path: Path) -> None:
    tables = (("a.csv", cells(";", first="sep=;\n"), [3, 4]), ("b.csv", cells(",", "\r"), [2, 3]))
    for name, content, numbers in tables:
        assert [line for line, _ in read_table(write(tmp_path, name, content))] == numbers
    wrapped = write(tmp_path, "c.json", '{"data": [\n{"id": 1},\n{"id": 2}]}')
    assert [line for line, _ in read_table(wrapped)] == [2, 3]


NOTES = {
    "a.csv": (cells(";"), "cells are separated by semicolons"),
    "b.csv": (cells("\t"), "cells are separated by tabs"),
    "c.csv": ("id;image,question\n", "the header has commas, semicolons: cells are taken to be separated by commas"),
    "d.json": ('{"questions": [{"id": 1}]}', "the rows are its list 'questions'"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTES)
def test_what_was_found_is_said(tmp_path: Path, name: str) -> None:
    content, expected = NOTES[name]
    assert table_notes(write(tmp_path, name, content)) == (expected,)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", cells(",")), ("a.tsv", cells("\t")), ("a.jsonl", JSON_LINES), ("a.csv", '"a;b",c\n')],
)
def test_nothing_is_said_of_what_is_as_its_suffix_says(tmp_path: Path, name: str, content: str) -> None:
    assert table_notes(write(tmp_path, name, content)) == ()


def test_a_row_with_lists_of_its_own_is_a_row(tmp_path: Path) -> None:
    row = {"question_id": "1", "image": "a.jpg", "answers": [{"answer": "예"}]}
    assert read(tmp_path, "a.json", json.dumps(row)) == [row]


# ------------------------------------------------------------------------------- what is refused


def zipped(*members: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member in members:
            archive.writestr(member, "x")
    return stream.getvalue()


def sqlite_file() -> bytes:
    database = sqlite3.connect(":memory:")
    database.execute("create table t (id)")
    return database.serialize()


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
OTHERS: dict[str, tuple[str, bytes, str]] = {
    "a cut .xlsx": ("t.xlsx", b"PK\3\4\0\0", "a damaged Excel file"),
    "a zip": ("t.csv", zipped("a.csv"), "a zip archive"),
    "a cut zip": ("t.csv", zipped("a.csv")[:-30], "a damaged zip archive"),
    "a Word document": ("t.xlsx", zipped("word/document.xml"), "a Word document"),
    "an OpenDocument table": ("t.ods", zipped("mimetype", "content.xml"), "an OpenDocument file"),
    "a binary workbook": ("t.xlsb", zipped("xl/workbook.bin"), "a binary Excel file (.xlsb)"),
    "Hangul's newer format": ("t.hwpx", zipped("Contents/content.hpf"), "a Hangul (HWP) document"),
    "Numbers": ("t.numbers", zipped("Index/Document.iwa"), "an Apple Numbers file"),
    "an old workbook": ("t.xls", OLE + "Workbook".encode("utf-16-le"), "an Excel file of the old kind (.xls)"),
    "a workbook with a password": (
        "t.xlsx", OLE + "EncryptedPackage".encode("utf-16-le"), "an Office file with a password",
    ),
    "Hangul": ("t.csv", OLE + "HwpSummaryInformation".encode("utf-16-le"), "a Hangul (HWP) document"),
    "something old of Office": ("t.xls", OLE, "an old Office file"),
    "a PDF": ("t.csv", b"%PDF-1.7\n", "a PDF document"),
    "a page": ("t.json", b"\n<!DOCTYPE html><html>404</html>", "an HTML page"),
    "Excel's HTML": ("t.xls", b"<table><tr><td>id</td></tr></table>", "an HTML table"),
    "a pointer of LFS": ("t.parquet", b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
    "a pickle": ("t.pkl", pickle.dumps([1]), "a Python pickle, which is never loaded"),
    "Arrow": ("t.arrow", b"ARROW1\0\0abc", "an Arrow file"),
    "SQLite": ("t.db", sqlite_file(), "an SQLite database"),
    "an image": ("t.csv", b"\x89PNG\r\n\x1a\n....", "an image (PNG)"),
    "7z": ("t.csv", b"7z\xbc\xaf\x27\x1c....", "a 7z archive"),
    "xz": ("t.csv.xz", b"\xfd7zXZ\0....", "packed with xz"),
    "zeros of a broken download": ("t.csv", bytes(1000), "nothing but zero bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_no_table_is_named_as_what_it_is(tmp_path: Path, case: str) -> None:
    name, content, expected = OTHERS[case]
    with pytest.raises(DataError) as caught:
        read(tmp_path, name, content)
    assert caught.value.message.startswith(f"{tmp_path / name} is {expected}")
    assert caught.value.hint


BROKEN = {
    "a cut gzip file": ("a.csv.gz", gzip.compress(cells(",").encode() * 50)[:-20], r"a\.csv\.gz: damaged gzip"),
    "a gzip file with a wrong sum": (
        "a.csv.gz", gzip.compress(cells(",").encode())[:-8] + bytes(8), r"a\.csv\.gz: damaged gzip",
    ),
    "an empty list": ("a.json", b'{"data": []}', r"a\.json is a JSON object whose list has no rows: data"),
    "several lists": (
        "a.json", b'{"images": [{"x": 1}], "annotations": [{"y": 1}]}', "several lists: images, annotations",
    ),
    "a document in JSON lines": ("a.jsonl", b'{"id": 1,\n"x": 2}', r"a\.jsonl:1: not a JSON line"),
    "a broken object": ("a.json", b'{"data": [\n{"id": }]}', r"a\.json:2: not valid JSON"),
    "text": ("a.txt", "그냥 글입니다".encode(), r"a\.txt:1: not a JSON line"),
    "nothing packed": ("a.csv.gz", gzip.compress(b""), "is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_table_says_what_is_wrong(tmp_path: Path, case: str) -> None:
    name, content, expected = BROKEN[case]
    with pytest.raises(DataError, match=expected):
        read(tmp_path, name, content)


# --------------------------------------------------------------------------------- conversations

TURNS = [
    {"from": "human", "value": "<image>\n무엇인가요?"}, {"from": "gpt", "value": "고양이"},
    {"from": "human", "value": "무슨 색?"}, {"from": "gpt", "value": "흰색"},
]  # fmt: skip
CONVERSATIONS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "one turn": (
        {"id": "7", "image": "a.jpg", "conversations": TURNS[:2]},
        [{"id": "7", "image": "a.jpg", "question": "무엇인가요?", "answer": "고양이"}],
    ),
    "several turns": (
        {"id": "7", "image": "a.jpg", "conversations": TURNS, "source": "ko"},
        [
            {"source": "ko", "id": "7/1", "image": "a.jpg", "question": "무엇인가요?", "answer": "고양이"},
            {"source": "ko", "id": "7/2", "image": "a.jpg", "question": "무슨 색?", "answer": "흰색"},
        ],
    ),
    "no id, no image, a question without an answer": (
        {"conversations": [*TURNS[:2], {"from": "human", "value": "왜?\n<image>"}]},
        [
            {"id": "1/1", "image": "", "question": "무엇인가요?", "answer": "고양이"},
            {"id": "1/2", "image": "", "question": "왜?"},
        ],
    ),
    "messages of OpenAI's form": (
        {"id": "7", "images": ["a.jpg"], "messages": [
            {"role": "system", "content": "짧게"},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "뭐?"}]},
            {"role": "assistant", "content": "개"},
        ]},
        [{"id": "7", "image": "a.jpg", "question": "뭐?", "answer": "개"}],
    ),
    "an image inside of a message": (
        {"id": "7", "messages": [
            {"role": "user", "content": [{"type": "image", "image": "b.png"}, {"type": "text", "text": "뭐?"}]},
        ]},
        [{"id": "7", "image": "b.png", "question": "뭐?"}],
    ),
    "a table that has a question of its own": (
        {"id": "7", "image": "a.jpg", "question": "뭐?", "messages": []},
        [{"id": "7", "image": "a.jpg", "question": "뭐?", "messages": []}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONVERSATIONS)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_each_question_of_a_conversation_is_a_row(tmp_path: Path, name: str, case: str) -> None:
    row, expected = CONVERSATIONS[case]
    content = json.dumps([row] if name == "a.json" else row, ensure_ascii=False)
    assert read(tmp_path, name, content, required={"question": ("question",)}) == expected
