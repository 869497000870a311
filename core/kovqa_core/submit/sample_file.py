"""A contest's sample file: the rows it wants, and a submission written just as the sample is.

The sample's columns, their order, its rows and their order, encoding, byte-order mark, delimiter and line ends are
kept; only the column of the answers is written anew. Cells have quotation marks where they need them.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kovqa_core.data.json_stream import decode_blocks, iter_json_records
from kovqa_core.data.row_ids import TableRow, qualified_id, unique_row_ids
from kovqa_core.data.tables import cell_text, check_unique_id, read_table, record_text
from kovqa_core.data.tables.table_format import detect_table_format
from kovqa_core.errors import DataError, SettingsError, list_ids
from kovqa_core.evaluate.predictions_file import IMAGE_COLUMNS, find_column
from kovqa_core.files import read_bytes
from kovqa_core.index.reader import IndexSplit
from kovqa_core.messages import Message, message
from kovqa_core.text_encoding import detect_encoding

# Names of the two columns in lower case, the likeliest first.
_ID_NAMES = ("id", "question_id", "qid", "image_id", "idx", "index")
_ANSWER_NAMES = ("answer", "answers")
_OTHER_ANSWER_NAMES = ("caption", "text", "prediction", "label", "target", "정답", "답")
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_OUTPUT_SUFFIXES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class CsvLayout:
    """How a table's text is written.

    Attributes:
        encoding: a codec of Python's.
        byte_order_mark: what the file begins with.
        delimiter: between cells.
        line_end: after every row.
    """

    encoding: str = "utf-8"
    byte_order_mark: bytes = b""
    delimiter: str = ","
    line_end: str = "\n"


@dataclass(frozen=True)
class SampleFile:
    """A contest's sample.

    Attributes:
        columns: names, in its order.
        rows: cells, in its order.
        ids: of the rows; those that repeat under several images are qualified (`data/row_ids.py`).
        images: of the rows; "" where it has no column of them.
        id_column, answer_column: of `columns`.
        layout: of its text.
    """

    path: Path
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    ids: Sequence[str]
    images: Sequence[str]
    id_column: str
    answer_column: str
    layout: CsvLayout


def read_sample(path: Path, columns: Mapping[str, str] | None = None) -> SampleFile:
    """Read a sample: CSV or TSV as it comes, or another table, whose submission is a CSV in UTF-8.

    Args:
        path: the sample.
        columns: "id" and "answer" -> their names there; those not named are found by their usual names, or as the
            other one of two columns.

    Raises:
        SettingsError: `columns` names something else.
        DataError: no rows, no such column, an id that is missing or there twice (with its line).
    """
    given = dict(columns or {})
    if unknown := sorted(given.keys() - {"id", "answer"}):
        raise SettingsError(
            message(
                "submit.unknown-column", "--column {name}=…: a sample has id and answer", name=unknown[0]
            ),
            message("submit.name-columns.hint", "name them: --column id=NAME --column answer=NAME"),
        )
    names: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    id_column = answer_column = ""
    for line, row in read_table(path):
        if not names:
            names = list(row)
            id_column, answer_column = _choose_columns(path, names, given)
        place = f"{path}:{line}"
        cells = [record_text(row, name, place) for name in names if name in row]
        if len(cells) != len(names) or len(row) != len(names):
            raise DataError(
                message(
                    "submit.sample-other-columns", "{sample}:{line}: other columns than the first row",
                    sample=path, line=line,
                ),
                sample_hint(),
            )  # fmt: skip
        id = cells[names.index(id_column)]
        if not id.strip():
            raise DataError(
                message("submit.sample-no-id", "{sample}:{line}: no id", sample=path, line=line),
                sample_hint(),
            )
        rows.append(cells)
        lines.append(line)
    if not rows:
        raise DataError(message("submit.sample-empty", "{sample} has no rows", sample=path), sample_hint())
    others = [name for name in names if name not in (id_column, answer_column)]
    image_column = find_column(others, IMAGE_COLUMNS)
    id_place = names.index(id_column)
    images = [row[names.index(image_column)] if image_column else "" for row in rows]
    ids = _distinct_ids(path, [row[id_place] for row in rows], images, lines)
    return SampleFile(
        path, names, rows, ids, images, id_column, answer_column, _detect_layout(path, len(names))
    )


def _distinct_ids(path: Path, ids: Sequence[str], images: Sequence[str], lines: Sequence[int]) -> list[str]:
    """An id for every row: where it repeats, its image is part of it; without one, it is an error."""
    if not any(images) and len(set(ids)) == len(ids):
        return list(ids)
    seen: dict[str, int] = {}
    for id, image, line in zip(ids, images, lines, strict=True):
        check_unique_id(qualified_id(id, image) if image else id, line, seen, path)
    keys = unique_row_ids([TableRow(id, image, "") for id, image in zip(ids, images, strict=True)])
    return [id if key is None else key for key, id in zip(keys, ids, strict=True)]


def sample_hint() -> Message:
    """What to do about a sample that is not as it should be."""
    return message("submit.sample.hint", "take the sample that the challenge hands out")


def _choose_columns(path: Path, names: Sequence[str], given: Mapping[str, str]) -> tuple[str, str]:
    """The columns of ids and answers."""
    for name in given.values():
        if name not in names:
            raise _no_column_error(path, name, names)
    others = [name for name in names if name not in given.values()]
    chosen = {"id": given.get("id") or find_column(others, _ID_NAMES)}
    others = [name for name in others if name != chosen["id"]]
    chosen["answer"] = given.get("answer") or find_column(others, _ANSWER_NAMES)
    if chosen["answer"] is None:
        possible = [name for name in others if find_column([name], _OTHER_ANSWER_NAMES)]
        # Of several none is chosen: the answers would stand in the wrong one without a word.
        if len(possible) > 1 and len(names) > 2:
            raise DataError(
                message(
                    "submit.several-answer-columns", "{sample}: the answers may belong in {columns}",
                    sample=path, columns=", ".join(possible),
                ),
                message("submit.name-answer-column.hint", "name it: --column answer={column}", column=possible[0]),
            )  # fmt: skip
        chosen["answer"] = next(iter(possible), None)
    if len(names) == 2:
        # Two columns: the one that is not the one is the other.
        for ours, other in (("id", "answer"), ("answer", "id")):
            rest = [name for name in names if name != chosen[other]]
            chosen[ours] = chosen[ours] or (rest[0] if len(rest) == 1 else None)
    id_column, answer_column = chosen["id"], chosen["answer"]
    if id_column is None or answer_column is None or id_column == answer_column:
        raise _no_column_error(path, "id" if id_column is None else "answer", names)
    return id_column, answer_column


def _no_column_error(path: Path, name: str, names: Sequence[str]) -> DataError:
    return DataError(
        message(
            "submit.sample-lacks-column", "{sample}: no column '{column}'; it has {columns}",
            sample=path, column=name, columns=", ".join(names),
        ),
        message("submit.name-columns.hint", "name them: --column id=NAME --column answer=NAME"),
    )  # fmt: skip


def read_json_ids(sample: Path, records: tuple[str, str]) -> list[str]:
    """The ids of a challenge's JSON file or of an index split, in its order, each once.

    Args:
        sample: the file.
        records: name of its list, and of the ids there.

    Raises:
        DataError: no rows, or one id under several images.
    """
    if sample.suffix == ".jsonl":
        ids = [example.id for example in IndexSplit(sample)]
    else:
        name, key = records
        rows = iter_json_records(sample, name, (key,), (key, "image_id"), as_text=True)
        pairs = dict.fromkeys((cell_text(row[key]), cell_text(row.get("image_id"))) for row in rows)
        ids = [id for id, _ in pairs]
        if repeated := [id for id, times in Counter(ids).items() if times > 1]:
            raise DataError(
                message(
                    "submit.sample-ids-repeat", "{sample}: under several images: {ids}",
                    sample=sample, ids=list_ids(repeated),
                ),
                message(
                    "submit.sample-ids-repeat.hint",
                    "the challenge takes one answer per id: give each question an id of its own",
                ),
            )  # fmt: skip
    if not ids:
        raise DataError(
            message("submit.sample-empty", "{sample} has no rows", sample=sample),
            message("submit.split-empty.hint", "choose the split to submit"),
        )
    return list(dict.fromkeys(ids))


# ------------------------------------------------------------------------------------- its text


def _detect_layout(path: Path, columns: int) -> CsvLayout:
    """How the text of a sample is written; the layout of a new CSV where it is not a CSV.

    Raises:
        DataError: a JSON file; a column without a name, which `read_table` passes over and the submission would lack.
    """
    form = detect_table_format(path)
    if not form.has_header:
        raise DataError(
            message("submit.sample-is-json", "{sample} is JSON, not a table with a header", sample=path),
            sample_hint(),
        )
    if form.name != "csv":
        return CsvLayout()
    text = "".join(decode_blocks(path))
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=form.delimiter)
    header = next(cells for number, cells in enumerate(filter(None, lines)) if number >= form.skipped_lines)
    if len(header) > columns:
        raise DataError(
            message("submit.sample-unnamed-column", "{sample}: a column without a name", sample=path),
            message("submit.sample-unnamed-column.hint", "name it, or remove it"),
        )
    line_end = "\r\n" if form.line_end == "\n" and "\r\n" in text else form.line_end
    data = read_bytes(path)
    mark = next((mark for mark in _BYTE_ORDER_MARKS if data.startswith(mark)), b"")
    encoding = _BYTE_ORDER_MARKS.get(mark) or detect_encoding(lambda: iter([data])).removesuffix("-sig")
    return CsvLayout(encoding, mark, form.delimiter, line_end)


def encode_submission(sample: SampleFile, answers: Mapping[str, str]) -> bytes:
    """The bytes of a submission.

    Args:
        sample: what it is written like.
        answers: id of the sample -> text.

    Raises:
        DataError: a text that the sample's encoding does not have; the first ten ids are named.
    """
    layout, place = sample.layout, sample.columns.index(sample.answer_column)
    lines, broken = [_csv_line(sample.columns, layout)], []
    for id, cells in zip(sample.ids, sample.rows, strict=True):
        row = [*cells[:place], answers[id], *cells[place + 1 :]]
        lines.append(_csv_line(row, layout))
        if not _can_encode(lines[-1], layout.encoding):
            broken.append(id)
    if broken:
        raise DataError(
            message(
                "submit.not-in-encoding", "{sample} is in {encoding}, which lacks a letter of the answer to {ids}",
                sample=sample.path, encoding=layout.encoding.upper(), ids=list_ids(broken),
            ),
            message("submit.not-in-encoding.hint", "save the sample as UTF-8, if the contest takes that"),
        )  # fmt: skip
    return layout.byte_order_mark + "".join(lines).encode(layout.encoding)


def pandas_layout(sample: SampleFile) -> SampleFile:
    """The sample as pandas would write it: UTF-8, marked only if it is, commas, line feeds."""
    mark = sample.layout.byte_order_mark
    return replace(sample, layout=CsvLayout(byte_order_mark=mark if mark == codecs.BOM_UTF8 else b""))


def require_csv_output(path: Path) -> None:
    """See that a file's name does not promise another format than CSV.

    Raises:
        SettingsError: it does.
    """
    if path.suffix.lower() not in _OUTPUT_SUFFIXES:
        raise SettingsError(
            message("submit.output-not-csv", "{output}: a submission like the sample is a CSV", output=path),
            message("submit.output-not-csv.hint", "choose a name that ends in .csv with -o"),
        )


def _can_encode(text: str, encoding: str) -> bool:
    if text.isascii() or encoding.startswith("utf"):
        return True
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _csv_line(cells: Sequence[str], layout: CsvLayout) -> str:
    return layout.delimiter.join(_csv_cell(cell, layout.delimiter) for cell in cells) + layout.line_end


def _csv_cell(text: str, delimiter: str) -> str:
    """A cell as pandas writes it; a lone carriage return is quoted too, which Python 3.11's csv forgets."""
    is_plain = delimiter not in text and '"' not in text and "\r" not in text and "\n" not in text
    return text if is_plain else '"' + text.replace('"', '""') + '"'
