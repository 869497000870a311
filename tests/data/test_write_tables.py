"""Predictions in the formats people open, and read back to the letter."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from kovqa_core.data.example import Answer
from kovqa_core.data.tables import read_table
from kovqa_core.data.write_tables import (
    encode_table,
    require_list_fits,
    require_table_fits,
    require_table_format,
)
from kovqa_core.errors import MachineError, SettingsError
from kovqa_core.evaluate.ensemble import vote_on_files
from kovqa_core.evaluate.predictions_file import read_predictions
from kovqa_core.evaluate.write_predictions import PredictionRow, encode_predictions
from kovqa_core.submit.submission import write_submission

SUFFIXES = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx"]
ANSWERS = {
    "007": Answer("01", 0.123456),
    "1.0": Answer('그는 "네", 라고', 1.0),
    "-3": Answer("=1+1", 0.0, (("=1+1", 0.0), ('"따옴표", 쉼표', 0.0))),
    "a\tb": Answer("두\n줄", float("nan")),
    "@가": Answer("None", 0.5),
}


def rows() -> list[PredictionRow]:
    extra = {"메모": "+82", "n": 3}
    return [
        PredictionRow(id, answer, extra, {"메모": "+82", "id": id, "사진": "x.png", "n": 3})
        for id, answer in ANSWERS.items()
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_read_back_to_the_letter(tmp_path: Path, suffix: str) -> None:
    """By evaluate, vote and submit alike: ids and answers that look like numbers or formulas stay texts."""
    path = tmp_path / f"예측{suffix}"
    require_table_format(path)
    path.write_bytes(encode_predictions(path, rows()))
    predictions = read_predictions(path)
    assert predictions.texts == {id: answer.text for id, answer in ANSWERS.items()}
    assert predictions.confidence == {id: a.score for id, a in ANSWERS.items() if a.score == a.score}
    assert predictions.likeliest == {id: a.likeliest for id, a in ANSWERS.items() if a.likeliest}
    voted = tmp_path / f"vote{suffix}"
    vote_on_files([path, path], voted)
    assert read_predictions(voted).texts == predictions.texts
    sample = tmp_path / "sample.csv"
    sample.write_text("ID,answer\n007,x\n", "utf-8")
    one = tmp_path / f"one{suffix}"
    one.write_bytes(encode_predictions(one, rows()[:1]))
    write_submission("dacon", one, sample, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text("utf-8") == "ID,answer\n007,01\n"


def test_a_csv_opens_in_excel_and_has_the_order_of_the_input() -> None:
    data = encode_predictions(Path("x.csv"), rows())
    header = "\ufeff메모,id,사진,n,answer,score,likeliest\r\n"
    assert data.startswith(f"{header}+82,007,x.png,3,01,0.123456,\r\n".encode())
    assert '\r\n+82,1.0,x.png,3,"그는 ""네"", 라고",1.0,\r\n'.encode() in data
    assert data.endswith(b",0.5,\r\n")
    tsv = encode_predictions(Path("x.tsv"), rows()).decode("utf-8-sig")
    assert [*csv.reader(tsv.splitlines()[:1], delimiter="\t")] == [
        ["메모", "id", "사진", "n", "answer", "score", "likeliest"]
    ]


def test_our_columns_win_over_the_inputs(tmp_path: Path) -> None:
    """Also a column Caption: with it, a file of answers would be read as one of captions."""
    others = {
        "answer": "참",
        "score": 9,
        "likeliest": [["참", 1]],
        "Caption": "c",
        "captions": "d",
        "남김": 1,
    }
    row = PredictionRow("1", Answer("예", 0.5), others, {"id": " 1", **others})
    for name in ("a.jsonl", "a.csv"):
        path = tmp_path / name
        path.write_bytes(encode_predictions(path, [row]))
        assert read_predictions(path).texts == {"1": "예"}
        ((_, read),) = read_table(path)
        assert list(read) == (
            ["id", "answer", "score", "남김"] if name == "a.jsonl" else ["id", "남김", "answer", "score"]
        )


def test_values_keep_their_types_where_a_format_has_them(tmp_path: Path) -> None:
    import pyarrow.parquet

    table = [
        {"n": 1, "x": 1.5, "b": True, "l": [1, 2], "d": {"a": 1}, "m": 1, "t": "01", "e": None},
        {"n": None, "x": 2, "b": False, "l": [], "d": None, "m": "가", "new": "=1"},
    ]
    path = tmp_path / "t.parquet"
    path.write_bytes(encode_table(path, table))
    read = pyarrow.parquet.read_table(path)
    types = {name: str(read.schema.field(name).type) for name in read.schema.names}
    assert (types["n"], types["x"], types["b"], types["l"]) == (
        "int64",
        "double",
        "bool",
        "list<element: int64>",
    )
    assert {types["d"], types["m"], types["t"], types["new"]} == {"string"}
    assert read.column("m").to_pylist() == ["1", "가"]
    assert (
        encode_table(Path("a.csv"), table).decode("utf-8-sig").splitlines()[1]
        == '1,1.5,true,"[1, 2]","{""a"": 1}",1,01,,'
    )


def test_half_a_character_and_control_characters_stop_no_format() -> None:
    for suffix in SUFFIXES:
        assert encode_table(Path(f"a{suffix}"), [{"id": "\ud83d", "b\0": "a\x0bb\0"}])


@pytest.mark.parametrize("name", ["x", "x.txt", "x.xls", "x.csv.gz", "x.jsonl.part"])
def test_an_unknown_format_is_named_before_any_work(name: str) -> None:
    with pytest.raises(SettingsError, match="unknown format") as caught:
        require_table_format(Path(name))
    assert ".jsonl, .csv, .tsv, .json, .parquet, .xlsx" in caught.value.hint


@pytest.mark.parametrize(("suffix", "library"), [(".parquet", "pyarrow"), (".xlsx", "openpyxl")])
def test_a_library_that_is_not_installed_is_named(
    suffix: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MachineError, match=f"needs {library}") as caught:
        require_table_format(Path(f"x{suffix}"))
    assert "kovqa[tables]" in caught.value.hint


def test_what_excel_cannot_hold_is_said_before_any_work() -> None:
    row = {"id": "1"}
    with pytest.raises(SettingsError, match="1,048,576 rows of 4 columns"):
        require_table_fits(Path("x.xlsx"), [row] * 1_048_576, 3)
    with pytest.raises(SettingsError, match="row 2, column a has more than the 32,767 characters"):
        require_table_fits(Path("x.xlsx"), [row, {"a": "가" * 32_768}])
    require_table_fits(Path("x.csv"), [{"a": "가" * 32_768}])


def test_a_text_that_excel_would_cut_is_refused() -> None:
    require_list_fits(Path("x.xlsx"), 100)
    require_list_fits(Path("x.csv"), 101)
    with pytest.raises(SettingsError, match="a list of 101 answers does not fit into a cell of Excel"):
        require_list_fits(Path("x.xlsx"), 101)
    with pytest.raises(SettingsError, match="a text of 32,768 characters"):
        encode_table(Path("x.xlsx"), [{"likeliest": ["가" * 32_764]}, {"likeliest": "나"}])
