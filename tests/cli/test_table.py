"""Tables fit the terminal: texts wrap, columns go by rank and are named, digits stay together, nothing is cut."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from kovqa_cli.output.table import Column, fit_columns, print_table

COLUMNS: list[Column] = [
    ("name", "left"), ("recipe", "left", 1), ("task", "left", 3), ("steps", "right"), ("best", "right"), ("state", "text"),
]  # fmt: skip
ROWS = [
    [
        "kobeit3-1121-093000",
        "kobeit3",
        "vqa",
        "12,000/20,000",
        "score 51.20%",
        "stopped at step 12,000: time limit",
    ],
    ["한글 이름이 아주 긴 실행 폴더", "tiny", "vqa", "1,500/1,500", "score 98.10%", "끝났습니다"],
]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_a_table_fits(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(COLUMNS, ROWS, "what it is")
    shown, notes = capsys.readouterr()
    if width > 40:  # below, rows stand one after the other, and the terminal wraps their lines
        assert max(map(cell_len, shown.splitlines())) <= width
    letters = "".join(shown.split())
    for row in ROWS:
        for (heading, *_), cell in zip(COLUMNS, row, strict=True):
            if "," in cell and "/" in cell:
                assert cell in shown  # digits are never folded
            missing = not all(letter in letters for letter in cell.replace(" ", ""))
            assert not missing or heading in notes
    assert ("no room for: recipe, task" in notes) == (width in (60, 80))
    assert ("name: kobeit3-1121-093000" in shown) == (width == 40)


def test_a_pipe_gets_all_of_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(COLUMNS, [[*ROWS[0][:-1], "a reason " * 40]])
    line = capsys.readouterr().out.splitlines()[3]
    assert line.count("a reason") == 40 and "vqa" in line


def test_columns_go_by_rank() -> None:
    natural = [10, 10, 10, 10]
    columns: list[Column] = [("a", "left"), ("b", "left", 1), ("c", "left", 2), ("d", "right")]
    assert fit_columns(columns, natural, 46).left_out == ()
    assert fit_columns(columns, natural, 45).left_out == (2,)
    assert fit_columns(columns, natural, 33).left_out == (1, 2)
    assert fit_columns(columns, natural, 21).columns == ()
    assert fit_columns(columns, natural, None).columns == (0, 1, 2, 3)
