"""A selection as a table that other programs open, and that `kovqa predict --input` reads; row by row."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.data.example import json_line
from kovqa_core.data.write_tables import encode_table, require_table_format
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.messages.readable_name import readable_name
from kovqa_core.view.filters import RowFilter
from kovqa_core.view.session import ViewSession

if TYPE_CHECKING:
    from kovqa_core.view.queries import ViewQueries

EXPORT_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
MAX_EXCEL_ROWS = 100_000  # a workbook is made in memory
_INPUT_COLUMNS = ("id", "image", "question", "answer", "kind", "choices", "context")
_CAPTION_COLUMNS = ("id", "image", "captions", "kind")


def export_rows(session: ViewSession, queries: ViewQueries, chosen: RowFilter, form: str) -> Iterator[bytes]:
    """The bytes of the table, in parts.

    Args:
        session: with the splits.
        queries: of its database.
        chosen: the rows, and their order.
        form: "csv" (UTF-8 with a byte-order mark, without which Excel takes Hangul for another encoding), "jsonl" or
            "xlsx", where a text that begins with = stays a text; spreadsheets may take that of a CSV for a formula.

    Raises:
        SettingsError: more rows, or longer texts, than a workbook can have.
        MachineError: the library for workbooks is not installed.
    """
    rows = _table_rows(session, queries, chosen)
    if form == "xlsx":
        return iter([_workbook(list(itertools.islice(rows, MAX_EXCEL_ROWS + 1)), _columns(session))])
    return _text_lines(session, rows, form)


def _workbook(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> bytes:
    path = Path("kovqa-selection.xlsx")
    require_table_format(path)
    if len(rows) > MAX_EXCEL_ROWS:
        raise SettingsError(
            message("view.too-many-for-excel", "more than {most:,} rows for Excel", most=MAX_EXCEL_ROWS),
            message("view.too-many-for-excel.hint", "choose fewer rows, or take the CSV"),
        )
    return encode_table(path, [{name: row.get(name) for name in columns} for row in rows])


def _text_lines(session: ViewSession, rows: Iterator[Mapping[str, object]], form: str) -> Iterator[bytes]:
    if form == "jsonl":
        yield from (
            json_line({k: v for k, v in row.items() if v is not None}).encode() + b"\n" for row in rows
        )
        return
    columns = _columns(session)
    yield "\ufeff".encode() + _csv_line(columns)
    for row in rows:
        yield _csv_line(["" if (value := row.get(name)) is None else _cell(value) for name in columns])


def _columns(session: ViewSession) -> Sequence[str]:
    models = "ab"[: len(session.inputs.predictions)]
    own = _CAPTION_COLUMNS if session.inputs.task == "caption" else _INPUT_COLUMNS
    # Not `answer` or `score`: those are the columns that `kovqa predict` writes.
    return (
        *own,
        "split",
        *(f"{name}_{model}" for model in models for name in ("answer", "score", "confidence")),
    )


def _table_rows(
    session: ViewSession, queries: ViewQueries, chosen: RowFilter
) -> Iterator[Mapping[str, object]]:
    names, splits = list(session.inputs.splits), list(session.inputs.splits.values())
    models = "ab"[: len(session.inputs.predictions)]
    for split, line, best, *given in queries.all_rows(chosen):
        example = splits[split][line]
        row: dict[str, object] = {"id": example.id, "image": readable_name(example.image)}
        if session.inputs.task == "caption":
            row |= {"captions": list(example.captions)}
        else:
            row |= {"question": example.question, "answer": best}
        row |= {
            "kind": example.question_type or None,
            "choices": list(example.choices) or None,
            "context": example.context or None,
            "split": names[split],
        }
        for place, model in enumerate(models):
            answer, score, confidence = given[3 * place : 3 * place + 3]
            row |= {
                f"answer_{model}": answer,
                f"score_{model}": score,
                f"confidence_{model}": confidence,
            }
        yield row


def _cell(value: object) -> str:
    return value if isinstance(value, str) else json_line(value)


def _csv_line(cells: Sequence[str]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream).writerow(cells)  # ends in CRLF
    return stream.getvalue().encode("utf-8", "replace")
