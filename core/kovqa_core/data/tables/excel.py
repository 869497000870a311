"""Rows of Excel's .xlsx: of the first sheet that has any, as they are shown there."""

from __future__ import annotations

import contextlib
import datetime
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kovqa_core.data.tables.csv_rows import CheckHeader, name_columns
from kovqa_core.data.tables.text_lines import empty_table_error
from kovqa_core.errors import DataError, KovqaError
from kovqa_core.files import open_file
from kovqa_core.messages import Message, message

_SCAN_BYTES = 1 << 20
_FORMULA_TAGS = (b"<f>", b"<f ")
_PERCENT_FORMAT = re.compile(r"0(?:\.(0+))?%")


def read_excel_rows(path: Path, check_header: CheckHeader) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their numbers in the sheet; all values are texts, and an empty cell is an empty one.

    Numbers are written without a fraction they do not have and with at most 15 digits, as Excel shows them,
    007 and 50% as their formats say; dates as ISO 8601; a formula is its last value. Hidden rows and columns are
    read; rows whose named columns hold nothing but blanks are not.

    Raises:
        DataError: openpyxl is not installed; a damaged file; a formula without a value; an error value.
    """
    with _open_workbook(path) as workbook:
        sheet = next((sheet for sheet in workbook.worksheets if _has_cells(sheet)), None)
        if sheet is None:
            raise empty_table_error(path)
        place = f"{path}, {sheet.title}"
        header: list[str] = []
        with _open_formulas(path, sheet.title) as formulas:
            for number, cells in enumerate(_iter_rows(sheet), 1):
                formula_cells = next(formulas, ())
                texts = [_shown_text(cell, f"{place}:{number}") for cell in cells]
                _require_values(cells, formula_cells, f"{place}:{number}")
                if not any(map(str.strip, texts)):
                    continue
                if not header:
                    header = name_columns(texts, f"{place}:{number}")
                    try:
                        check_header(header, f"{place}:{number}")
                    except DataError as error:
                        raise _wrong_sheet_error(error, workbook, sheet) from None
                    continue
                texts += [""] * (len(header) - len(texts))
                row = {name: text for name, text in zip(header, texts, strict=False) if name}
                if any(map(str.strip, row.values())):
                    yield number, row


def excel_notes(path: Path) -> tuple[Message, ...]:
    """Which of several sheets is read."""
    with _open_workbook(path) as workbook:
        names = [sheet.title for sheet in workbook.worksheets if _has_cells(sheet)]
    if len(names) < 2:
        return ()
    return (
        message(
            "data.first-sheet", "of its {count} sheets with rows the first is read: {name} (not {others})",
            count=len(names), name=names[0], others=", ".join(names[1:]),
        ),
    )  # fmt: skip


def _wrong_sheet_error(error: DataError, workbook: Any, sheet: Any) -> DataError:
    """The error for a sheet that lacks columns: where there are others, perhaps one of them was meant."""
    others = [each.title for each in workbook.worksheets if each.title != sheet.title and _has_cells(each)]
    if not others:
        return error
    hint = message(
        "data.wrong-sheet.hint", "{hint}; if another sheet is meant ({others}), move it to the front",
        hint=error.hint, others=", ".join(others),
    )  # fmt: skip
    return DataError(error.message, hint)


@contextlib.contextmanager
def _open_workbook(path: Path, *, values: bool = True) -> Iterator[Any]:
    """A workbook, for one pass over its sheets; errors of the library while it is open are errors of the file.

    Args:
        path: the file.
        values: of formulas their last values, instead of the formulas.
    """
    try:
        import openpyxl
    except ImportError:
        raise missing_library_error(path, "openpyxl") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of styles and validations that it does not keep
        try:
            # As a stream: of a path it would ask for the suffix, whatever the file holds.
            with open_file(path) as stream:
                workbook = openpyxl.load_workbook(stream, read_only=True, data_only=values)
                try:
                    yield workbook
                finally:
                    workbook.close()
        except KovqaError:
            raise
        except Exception as error:  # whatever a broken XML part leads to in the library
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
            raise DataError(
                message("data.damaged-xlsx", "{file} is a damaged Excel file ({problem})", file=path, problem=problem),
                message("data.damaged-zip.hint", "fetch it again, or save it as CSV in UTF-8"),
            ) from None  # fmt: skip


def missing_library_error(path: Path, library: str) -> DataError:
    """The error for a table whose library is not installed."""
    return DataError(
        message("data.needs-library", "{file} needs {library}, which is not installed", file=path, library=library),
        message("data.needs-library.hint", "pip install 'kovqa[tables]', or save it as CSV"),
    )  # fmt: skip


def _iter_rows(sheet: Any) -> Iterator[Sequence[Any]]:
    # Some programs write a wrong size of the sheet, and rows beyond it would not be read.
    sheet.reset_dimensions()
    return iter(sheet.iter_rows())


def _has_cells(sheet: Any) -> bool:
    return any(cell.value is not None for row in _iter_rows(sheet) for cell in row)


@contextlib.contextmanager
def _open_formulas(path: Path, title: str) -> Iterator[Iterator[Sequence[Any]]]:
    """The rows of a sheet with formulas instead of values; none where the file has no formula."""
    if not _has_formulas(path):
        yield iter(())
        return
    with _open_workbook(path, values=False) as workbook:
        yield _iter_rows(workbook[title])


def _has_formulas(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.startswith("xl/worksheets/"):
                continue
            with archive.open(name) as stream:
                rest = b""
                while block := stream.read(_SCAN_BYTES):
                    if any(tag in rest + block for tag in _FORMULA_TAGS):
                        return True
                    rest = block[-len(_FORMULA_TAGS[0]) :]
    return False


def _require_values(cells: Sequence[Any], formula_cells: Sequence[Any], place: str) -> None:
    for column, (cell, formula) in enumerate(zip(cells, formula_cells, strict=False), 1):
        # "str": the value is stored, and is an empty text (`=IF(B2="";"";…)`).
        if formula.data_type == "f" and cell.value is None and cell.data_type != "str":
            raise DataError(
                message(
                    "data.formula-without-value", "{place}: column {column} has a formula whose value is not stored",
                    place=place, column=column,
                ),
                message("data.formula-without-value.hint", "open it in Excel and save it, or save it as CSV"),
            )  # fmt: skip


def _shown_text(cell: Any, place: str) -> str:
    value = cell.value
    if cell.data_type == "e":
        raise DataError(
            message("data.excel-error", "{place}: column {column} shows the error {error}",
                    place=place, column=cell.column, error=value),
            message("data.excel-error.hint", "mend or empty the cell"),
        )  # fmt: skip
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return _shown_number(value, cell.number_format)
    if isinstance(value, datetime.datetime):
        return (value.date() if value.time() == datetime.time() else value).isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def _shown_number(value: float, number_format: str) -> str:
    if percent := _PERCENT_FORMAT.fullmatch(number_format):
        return f"{value:.{len(percent[1] or '')}%}"
    digits = f"{value:.15g}"
    # Ids are often numbers in the format 000; `zfill` knows the sign.
    is_padded = set(number_format) == {"0"} and digits.lstrip("-").isdigit()
    return digits.zfill(len(number_format) + digits.startswith("-")) if is_padded else digits
