"""Predictions may come back from a spreadsheet or a notebook: the same answers, in whatever format."""

from __future__ import annotations

import gzip
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet
import pytest
from kovqa_core.evaluate.predictions_file import read_predictions

ROWS = [{"id": 1, "answer": "고양이", "score": 0.5}, {"id": 2, "answer": "두 마리", "score": 1}]
CELLS = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
TEXT = "\n".join(";".join(map(str, cells)) for cells in CELLS)


def write_xlsx(path: Path) -> None:
    book = openpyxl.Workbook()
    for cells in CELLS:
        book.active.append(cells)
    book.save(path)


WRITERS = {
    "a.xlsx": write_xlsx,
    "a.parquet": lambda path: pa.parquet.write_table(pa.Table.from_pylist(ROWS), path),
    "a.csv": lambda path: path.write_bytes(TEXT.encode("utf-16")),
    "b.csv": lambda path: path.write_bytes(TEXT.replace("\n", "\r").encode("cp949")),
    "a.csv.gz": lambda path: path.write_bytes(gzip.compress(TEXT.encode())),
}


@pytest.mark.parametrize("name", WRITERS)
def test_predictions_are_read_in_every_format_of_a_table(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    predictions = read_predictions(tmp_path / name)
    assert predictions.texts == {"1": "고양이", "2": "두 마리"}
    assert predictions.confidence == {"1": 0.5, "2": 1.0}
