"""In which format a table is: by what is in it; its suffix decides only where both would be possible."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.data.file_kind import GZIP_MAGIC, PARQUET_MAGIC, ZIP_HEADS
from kovqa_core.data.json_stream import decode_blocks, list_json_lists
from kovqa_core.data.tables.other_files import find_other_kind, read_head
from kovqa_core.data.tables.tar_files import is_tar_file
from kovqa_core.errors import DataError
from kovqa_core.messages import Message, join_messages, message

_HEAD_CHARS = 1 << 16  # in which a header ends
_DELIMITERS: Mapping[str, Message] = {
    ",": message("data.comma", "commas"),
    ";": message("data.semicolon", "semicolons"),
    "\t": message("data.tab", "tabs"),
}
_QUOTED = re.compile(r'"[^"]*"')
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?$', re.IGNORECASE)  # Excel's own first line
# A key of a row: an object with one of them is no wrapper around a list of rows.
_ROW_KEYS = frozenset(
    ("id", "question_id", "image_id", "image", "question", "answer", "caption", "conversations", "messages")
)


@dataclass(frozen=True)
class TableFormat:
    """How a table is read.

    Attributes:
        name: "csv", "json-lines", "json-list", "json-object", "xlsx", "parquet" or "webdataset".
        delimiter: between the cells of a CSV.
        skipped_lines: before its header.
        line_end: of a CSV or JSON lines.
        list_name: the list that the rows are in, of an object.
        notes: what was found that its suffix does not say.
    """

    name: str
    delimiter: str = ","
    skipped_lines: int = 0
    line_end: str = "\n"
    list_name: str = ""
    notes: tuple[Message, ...] = ()

    @property
    def has_header(self) -> bool:
        """Do all rows have the same columns?"""
        return not self.name.startswith(("json", "webdataset"))


def detect_table_format(path: Path) -> TableFormat:
    """The format of a table.

    Raises:
        DataError: it cannot be read, or is something else; says what.
    """
    if is_tar_file(path):
        return TableFormat("webdataset")
    if kind := find_other_kind(path):
        raise DataError(
            message("data.no-table", "{file} is {kind}, not a table", file=path, kind=kind.name), kind.remedy
        )
    head = read_head(path, 4)
    if head.startswith(ZIP_HEADS[0]):
        return TableFormat("xlsx")
    if head.startswith(PARQUET_MAGIC):
        return TableFormat("parquet")
    suffix = (path.with_suffix("") if head.startswith(GZIP_MAGIC) else path).suffix.lower()
    text = _first_text(path)
    line_end = "\r" if "\r" in text and "\n" not in text else "\n"
    lines = text.lstrip().split(line_end)
    mark = lines[0][:1]
    if suffix in (".csv", ".tsv") and not _is_json(lines[0]):
        return _csv_format(text, suffix, line_end)
    if mark == "[":
        return TableFormat("json-list")
    if mark == "{":
        return _object_format(path, lines, line_end)
    if suffix == ".json":
        return TableFormat("json-list")  # whose reader says what is wrong with it
    if suffix in (".jsonl", ".ndjson") or not any(each in lines[0] for each in _DELIMITERS):
        return TableFormat("json-lines", line_end=line_end)
    return _csv_format(text, suffix, line_end)


def _first_text(path: Path) -> str:
    """Text that holds the first line, or the beginning of a longer one."""
    if path.exists() and not path.is_file():
        return ""  # a pipe can be read once only: its suffix has to do
    text = ""
    for block in decode_blocks(path):
        text += block
        if "\n" in text.lstrip() or len(text) > _HEAD_CHARS:
            break
    return text


def _is_json(line: str) -> bool:
    """Is it a JSON object or list? No header of a CSV is one."""
    if not line.startswith(("{", "[")):
        return False
    try:
        return bool(parse_json(line))
    except ValueError:
        return line.rstrip() in ("[", "{") or line.startswith(("[{", '{"'))


# ------------------------------------------------------------------------------------------ CSV


def _csv_format(text: str, suffix: str, line_end: str) -> TableFormat:
    """The delimiter is the only one of the header; where there are several or none, the suffix decides."""
    usual = "\t" if suffix == ".tsv" else ","
    lines = text.split(line_end)
    separator = _SEPARATOR_LINE.match(lines[0].rstrip("\r"))
    if separator:
        return TableFormat("csv", separator[1], 1, line_end)
    header = _QUOTED.sub("", next((line for line in lines if line.strip()), ""))
    found = [delimiter for delimiter in _DELIMITERS if delimiter in header]
    delimiter = found[0] if len(found) == 1 else usual
    notes: tuple[Message, ...] = ()
    if delimiter != usual:
        notes = (message("data.delimiter", "cells are separated by {mark}", mark=_DELIMITERS[delimiter]),)
    elif len(found) > 1:
        notes = (
            message(
                "data.several-delimiters", "the header has {found}: cells are taken to be separated by {mark}",
                found=join_messages(", ", [_DELIMITERS[each] for each in found]), mark=_DELIMITERS[delimiter],
            ),
        )  # fmt: skip
    return TableFormat("csv", delimiter, line_end=line_end, notes=notes)


# ----------------------------------------------------------------------------------------- JSON


def _object_format(path: Path, lines: list[str], line_end: str) -> TableFormat:
    """JSON lines, or one object that holds the rows in a list."""
    json_lines = TableFormat("json-lines", line_end=line_end)
    if len(lines) > 1:  # the first is whole
        try:
            first = parse_json(lines[0])
        except ValueError:
            if not _goes_on(lines[0]):
                return json_lines  # whose reader says what is wrong with its first line
        else:
            if (
                not isinstance(first, dict)
                or not _ROW_KEYS.isdisjoint(first)
                or any(map(str.strip, lines[1:]))
            ):
                return json_lines
    document = list_json_lists(path)
    if not _ROW_KEYS.isdisjoint(document.keys) or document.has_more:
        return json_lines
    filled = [name for name, count in document.record_counts.items() if count]
    if len(filled) == 1:
        note = message("data.list-taken", "the rows are its list '{name}'", name=filled[0])
        return TableFormat("json-object", list_name=filled[0], notes=(note,))
    if not document.record_counts:
        return json_lines
    names = ", ".join(document.record_counts)
    if filled:
        problem = message(
            "data.several-lists",
            "{file} is a JSON object with several lists: {names}",
            file=path,
            names=names,
        )
    else:
        problem = message(
            "data.empty-lists",
            "{file} is a JSON object whose list has no rows: {names}",
            file=path,
            names=names,
        )
    raise DataError(
        problem,
        message(
            "data.several-lists.hint",
            "write the rows as one list; COCO, VQAv2, AI-Hub and NIA are read as they come: kovqa index --help",
        ),
    )


def _goes_on(line: str) -> bool:
    """Can the first line of an object be one that is written over several lines?"""
    return line.rstrip().endswith(("{", "[", ",", ":"))
