"""Excel's .xlsx as it is shown there: every kind of cell, header and sheet; what has no value is named."""

from __future__ import annotations

import datetime
import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from kovqa_core.data.tables import read_table, table_notes
from kovqa_core.errors import DataError

HEADER = ("id", "question", "answer")


def workbook(path: Path, *sheets: Sequence[Sequence[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets, 1):
        sheet = book.create_sheet(f"표{number}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1, "1"), (1.0, "1"), (2.5, "2.5"), (0.1 + 0.2, "0.3"), (1e20, "1e+20"), (-7, "-7"),
        ("007", "007"), ("NA", "NA"), (" 예 ", " 예 "), ("두\n줄", "두\n줄"), (True, "TRUE"), (None, ""),
        (datetime.datetime(2024, 5, 1), "2024-05-01"), (datetime.date(2024, 5, 1), "2024-05-01"),
        (datetime.datetime(2024, 5, 1, 13, 30), "2024-05-01T13:30:00"), (datetime.time(9, 5), "09:05:00"),
    ],
)  # fmt: skip
def test_a_cell_is_read_as_it_is_shown(tmp_path: Path, value: Any, shown: str) -> None:
    path = workbook(tmp_path / "t.xlsx", [HEADER, (7, "무엇?", value)])
    assert list(read_table(path)) == [(2, {"id": "7", "question": "무엇?", "answer": shown})]


def test_empty_rows_and_columns_without_a_name_are_not_read(tmp_path: Path) -> None:
    rows = [
        (),
        (None, *HEADER),
        (),
        ("x", 1, "q", "a", "behind the header"),
        (None, None, None),
        (None, 2, "q"),
    ]
    expected = [
        (4, {"id": "1", "question": "q", "answer": "a"}), (6, {"id": "2", "question": "q", "answer": ""}),
    ]  # fmt: skip
    assert list(read_table(workbook(tmp_path / "t.xlsx", rows))) == expected


def test_hidden_rows_merged_headers_and_other_suffixes_are_read(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", [("id", "answer", None), (1, "a", "b"), (2, "c", "d")])
    book = openpyxl.load_workbook(path)
    book["표1"].row_dimensions[2].hidden = True
    book["표1"].merge_cells("B1:C1")
    book.save(path)
    renamed = path.rename(tmp_path / "t.csv")
    assert [row for _, row in read_table(renamed)] == [{"id": "1", "answer": "a"}, {"id": "2", "answer": "c"}]


def test_the_first_sheet_with_rows_is_read_and_named(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", [], [HEADER, (1, "q", "a")], [("other",)])
    assert [row["id"] for _, row in read_table(path)] == ["1"]
    assert table_notes(path) == ("of its 2 sheets with rows the first is read: 표2 (not 표3)",)
    assert table_notes(workbook(tmp_path / "one.xlsx", [HEADER])) == ()


def test_a_formula_is_its_last_value(tmp_path: Path) -> None:
    """openpyxl writes no values of formulas: one is put into the sheet's XML as Excel does."""
    import zipfile

    path, shown = workbook(tmp_path / "t.xlsx", [HEADER, (1, "q", "=1+1")]), tmp_path / "shown.xlsx"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(shown, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"<f>1+1</f><v />", b"<f>1+1</f><v>2</v>"))
    assert [row["answer"] for _, row in read_table(shown)] == ["2"]
    with pytest.raises(DataError, match="표1:2: column 3 has a formula whose value is not stored"):
        list(read_table(path))


def test_what_excel_calls_an_error_is_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.xlsx, 표1:2: column 3 shows the error #N/A"):
        list(read_table(workbook(tmp_path / "t.xlsx", [HEADER, (1, "q", "#N/A")])))


def test_errors_name_sheet_and_row(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", [("id", "id")])
    with pytest.raises(DataError, match=r"t\.xlsx, 표1:1: column 'id' appears twice"):
        list(read_table(path))
    with pytest.raises(DataError, match=r"t\.xlsx is empty"):
        list(read_table(workbook(tmp_path / "t.xlsx", [], [(None,)])))
    required = {"answer": ("answer",)}
    with pytest.raises(DataError, match="표1:1: no column 'answer'; it has id, Anser, did you mean 'Anser'"):
        list(read_table(workbook(tmp_path / "t.xlsx", [("id", "Anser")]), required))


def test_a_damaged_file_and_a_missing_library_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    path, broken = workbook(tmp_path / "t.xlsx", [HEADER, (1, "q", "a")]), tmp_path / "broken.xlsx"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(broken, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[: -20 if "sheet1" in name else None])
    with pytest.raises(DataError, match=r"broken\.xlsx is a damaged Excel file \(ParseError"):
        list(read_table(broken))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DataError, match=r"t\.xlsx needs openpyxl") as caught:
        list(read_table(path))
    assert "pip install 'kovqa[tables]'" in str(caught.value.hint)


def test_rows_of_blanks_are_not_read(tmp_path: Path) -> None:
    rows = [
        (*HEADER, None),
        (1, "q", "a", "note"),
        (" ", None, "\n"),
        (None, None, None, "note"),
        (2, "q", "a"),
    ]
    assert [line for line, _ in read_table(workbook(tmp_path / "t.xlsx", rows))] == [2, 5]


@pytest.mark.parametrize(
    ("value", "number_format", "shown"),
    [
        (7, "000", "007"), (-7, "000", "-007"), (1234, "000", "1234"), (7.5, "000", "7.5"), (7, "0", "7"),
        (0.5, "0%", "50%"), (0.125, "0.0%", "12.5%"), (1, "0%", "100%"), (1234, "#,##0", "1234"),
    ],
)  # fmt: skip
def test_zeros_and_per_cent_are_those_of_the_format(
    tmp_path: Path, value: float, number_format: str, shown: str
) -> None:
    path = workbook(tmp_path / "t.xlsx", [("answer",), (value,)])
    book = openpyxl.load_workbook(path)
    book.active["A2"].number_format = number_format
    book.save(path)
    assert list(read_table(path)) == [(2, {"answer": shown})]


def test_a_formula_may_have_an_empty_text_for_a_value(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", [HEADER, (1, "q", '=IF(A1="","",A1)')])
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = re.sub(rb'<c r="C2"[^>]*>', b'<c r="C2" t="str">', parts[sheet])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    assert list(read_table(path)) == [(2, {"id": "1", "question": "q", "answer": ""})]


def test_a_sheet_that_lacks_columns_names_the_others(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", [("우리 팀",)], [HEADER, (1, "q", "a")])
    with pytest.raises(DataError) as caught:
        list(read_table(path, {"answer": ("answer",)}, "name it"))
    assert str(caught.value.hint) == "name it; if another sheet is meant (표2), move it to the front"
