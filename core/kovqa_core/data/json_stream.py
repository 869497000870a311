"""Lists of records in JSON files of any size, one record after the other in bounded memory.

The standard library's scanner does the parsing; `_JsonWindow` moves a window of text over the file, so
that never more than a block and one record are in memory.

Why not ijson (3.6, yajl2_c): it reads 42 MB of AI-Hub's annotations in half the CPU time (0.32 s against
0.65 s), an eighth of what indexing them takes; and it differs where people notice. It replaces half a
surrogate pair by "?" without a word, so that an image is looked for under another name; refuses CP949, a
byte-order mark and NaN; gives 1e5 as Decimal('1E+5'), while a table's values stay as they are written; and
its errors name no line. Without its compiled back end it is slower than this.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kovqa_core import text_encoding
from kovqa_core.bounded_json import MAX_LINE_CHARS, SURELY_SHALLOW_CHARS, check_depth, nested_too_deep
from kovqa_core.data.file_kind import GZIP_MAGIC
from kovqa_core.data.json_values import (
    TEXT_SCANNERS,
    VALUE_SCANNERS,
    JsonRecord,
    JsonValue,
    Scanners,
)
from kovqa_core.errors import DataError
from kovqa_core.files import open_file
from kovqa_core.messages import Message, error_text, message

_READ_BLOCK_BYTES = 1 << 22  # bytes read at once
_JSON_WHITESPACE = re.compile(r"[ \t\r\n]*")
_JSON_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_NESTED_TYPES = frozenset((list, dict))
_FETCH_OR_UNPACK_HINT = message("data.broken-json.hint", "fetch or unpack it again")


def iter_json_records(
    path: Path, name: str, keys: Sequence[str] = (), texts: Sequence[str] = (), *, as_text: bool = False
) -> Iterator[JsonRecord]:
    """The records of the list `name` in a JSON object.

    Args:
        path: in any encoding of `text_encoding`; may be a gzip file.
        name: key of the list; a list of this name further inside is skipped.
        keys: what every record must have.
        texts: keys whose value, where there is one, is a text, a number, true, false or null.
        as_text: numbers as the text they are written with: 1.0 stays "1.0", and an id may have any length.

    Raises:
        DataError: no such list, broken JSON (with its line), a record that lacks a key, or has a list where
            a text is wanted.
    """
    text, needed = _JsonWindow(path, TEXT_SCANNERS if as_text else VALUE_SCANNERS), frozenset(keys)
    for number, row in enumerate(_take_named_list(text, name), 1):
        # Nearly all records are as they should be: two looks in C.
        if not (
            isinstance(row, dict)
            and row.keys() >= needed
            and _NESTED_TYPES.isdisjoint(map(type, row.values()))
        ):
            _check_record(row, keys, texts, path, number)
        yield row


def iter_named_list(path: Path, name: str, *, as_text: bool = False) -> Iterator[tuple[int, JsonValue]]:
    """Line number and value of every element of the list `name` in a JSON object; see `iter_json_list`."""
    text = _JsonWindow(path, TEXT_SCANNERS if as_text else VALUE_SCANNERS)
    yield from ((text.item_line, value) for value in _take_named_list(text, name))


def _take_named_list(text: _JsonWindow, name: str) -> Iterator[JsonValue]:
    is_present = False
    if text.peek() == "{":
        for key in text.take_keys():
            if text.peek() != "[":
                text.take_value()
                continue
            for value in text.take_items():
                if key == name:
                    yield value
            is_present = is_present or key == name
        text.take_end()
    if not is_present:
        raise DataError(
            message("data.no-json-list-of-name", "{file}: no list '{name}'", file=text.path, name=name),
            _FETCH_OR_UNPACK_HINT,
        )


@dataclass(frozen=True)
class JsonLists:
    """What lists a JSON object has.

    Attributes:
        keys: of the object.
        record_counts: name of each list that holds nothing but objects -> how many.
        has_more: does another value follow the object?
    """

    keys: tuple[str, ...]
    record_counts: dict[str, int]
    has_more: bool


def list_json_lists(path: Path) -> JsonLists:
    """The lists of a JSON document that is an object; it is read to its end, in bounded memory.

    Raises:
        DataError: no object, broken JSON (with its line).
    """
    text = _JsonWindow(path, VALUE_SCANNERS)
    keys: list[str] = []
    counts: dict[str, int] = {}
    text.peek_mark("{")
    for key in text.take_keys():
        keys.append(key)
        if text.peek() != "[":
            text.take_value()
            continue
        are_records = [isinstance(value, dict) for value in text.take_items()]
        if all(are_records):
            counts[key] = len(are_records)
    return JsonLists(tuple(keys), counts, text.has_more())


def iter_json_list(path: Path, *, as_text: bool = False) -> Iterator[tuple[int, JsonValue]]:
    """Line number and value of every element of a JSON document that is a list.

    Args:
        path: in any encoding of `text_encoding`; may be a gzip file.
        as_text: numbers as the text they are written with: 1.0 stays "1.0".

    Raises:
        DataError: not a list, broken JSON (with its line).
    """
    text = _JsonWindow(path, TEXT_SCANNERS if as_text else VALUE_SCANNERS)
    if text.peek() != "[":
        raise DataError(
            message("data.not-a-json-list", "{file}:{line}: not a JSON list", file=path, line=text.line()),
            _FETCH_OR_UNPACK_HINT,
        )
    yield from ((text.item_line, value) for value in text.take_items())
    text.take_end()


def _check_record(row: object, keys: Sequence[str], texts: Sequence[str], path: Path, number: int) -> None:
    if not isinstance(row, dict):
        row = {}
    for key in keys:
        if key not in row:
            raise DataError(
                message(
                    "data.record-lacks-key", "{file}: record {number} lacks '{key}'",
                    file=path, number=number, key=key,
                ),
                _FETCH_OR_UNPACK_HINT,
            )  # fmt: skip
    for key in texts:
        value = row.get(key)
        # By its type: `isinstance` with a union would make the union anew for every value.
        if type(value) is list or type(value) is dict:
            others = ", ".join(
                f"{name} {row[name]}"[:60] for name in texts if isinstance(row.get(name), str | int)
            )
            raise DataError(
                message(
                    "data.record-not-a-text", "{file}: record {number} ({others}): '{key}' is a {type}, not a text",
                    file=path, number=number, others=others, key=key, type=type(value).__name__,
                ),
                message("data.record-not-a-text.hint", "write one text or number there, or null"),
            )  # fmt: skip


class _JsonWindow:
    """A window that moves over the text of a file; `position` is the next character not yet taken.

    Attributes:
        item_line: line number that the latest element of a list begins in.
    """

    def __init__(self, path: Path, scanners: Scanners) -> None:
        self.path, self.window, self.position = path, "", 0
        self._strict_scan, self._scan = scanners.strict, scanners.fast
        self.item_line = 1
        # Line ends are counted once each: `_line` is the line number at `_counted`, a position in the window.
        self._line, self._counted = 1, 0
        # Decoded across blocks: a Hangul letter may be cut at the end of one.
        self._blocks = decode_blocks(path)
        self._read_block()
        if not self._peek_or_end():
            raise DataError(message("data.json-empty", "{file} is empty", file=path), _FETCH_OR_UNPACK_HINT)

    def peek(self) -> str:
        """The next character that is not white space, without taking it."""
        mark = self._peek_or_end()
        if not mark:
            raise self.error_at(self.position, message("data.json-too-short", "it ends too early"))
        return mark

    def _peek_or_end(self) -> str:
        while True:
            spaces = _JSON_WHITESPACE.match(self.window, self.position)
            self.position = spaces.end() if spaces else self.position
            if self.position < len(self.window):
                return self.window[self.position]
            if not self._read_block():
                return ""

    def take_mark(self, mark: str) -> None:
        """Take one character."""
        self.peek_mark(mark)
        self.position += 1

    def take_key(self, seen: set[str]) -> str:
        """Take a key of the document's own object and its colon, and add it to those seen so far."""
        self.peek()
        start = self.position
        key = self._take_value_here()
        problem = None
        if not isinstance(key, str):
            problem = message("data.json-no-key", "expected a key")
        elif key in seen:
            problem = message("data.json-key-twice", "key '{key}' appears twice", key=key)
        if problem:
            raise self.error_at(min(start, self.position), problem)
        seen.add(key)
        self.take_mark(":")
        return str(key)

    def peek_mark(self, mark: str) -> None:
        """See that a character comes next."""
        if self.peek() != mark:
            raise self.error_at(self.position, message("data.json-expected", "expected '{mark}'", mark=mark))

    def take_keys(self) -> Iterator[str]:
        """Take an object, key by key; whoever asks for the next key has taken the value of the last."""
        seen: set[str] = set()
        self.position += 1
        while (mark := self.peek()) != "}":
            self.position += mark == ","
            yield self.take_key(seen)
        self.position += 1

    def has_more(self) -> bool:
        """Is there anything but white space left?"""
        return bool(self._peek_or_end())

    def take_end(self) -> None:
        """See that nothing but white space is left."""
        if self._peek_or_end():
            raise self.error_at(self.position, message("data.json-too-long", "text after its end"))

    def take_value(self) -> JsonValue:
        """Take one value."""
        self.peek()
        return self._take_value_here()

    def _take_value_here(self) -> JsonValue:
        """Take the value that begins at `position`.

        The scanner needs all of it in the window. Where it fails, the file may be broken or the window too
        short: one more block is read, and it starts again at the value's first character. Records have some
        hundred bytes and blocks 4 MB, so that few are scanned twice.

        The scanner that looks for doubled keys takes 0.4 µs more for an object. A flat record does without:
        each of its keys has a colon, so where the text has no more colons than the object has keys, none was
        there twice. The first record with more (nested ones, times of day) ends that.
        """
        while True:
            try:
                value, end = self._scan(self.window, self.position)
                if end - self.position > SURELY_SHALLOW_CHARS:
                    check_depth(value, self.window, self.position, end)
            except StopIteration as error:
                # Kept, not raised: with one more block it may turn out that only the window was too short.
                problem = self.error_at(int(error.value), message("data.json-no-value", "expected a value"))
            except json.JSONDecodeError as error:
                problem = self.error_at(error.pos, error.msg)
            except RecursionError:
                raise self.error_at(self.position, nested_too_deep()) from None
            except ValueError as error:
                raise self.error_at(self.position, error_text(error)) from None
            else:
                if self._scan is not self._strict_scan and not self._has_no_doubled_key(value, end):
                    self._scan = self._strict_scan
                    continue
                # A number may go on in the next block: the scanner takes 12 of 12|3, and 1 of 1.|5 or 1e-|5.
                length = end - self.position  # reading a block moves the window, so positions change
                if len(self.window) - end > 2 or not self._read_block():
                    self.position += length
                    return value
                continue
            if len(self.window) - self.position > MAX_LINE_CHARS or not self._read_block():
                raise problem

    def _has_no_doubled_key(self, value: JsonValue, end: int) -> bool:
        """Is it sure, without looking at them, that the keys of the value that ends at `end` differ?"""
        if type(value) is dict:
            return self.window.count(":", self.position, end) == len(value)
        return type(value) is not list or self.window.find(":", self.position, end) < 0

    def take_items(self) -> Iterator[JsonValue]:
        """Take a list, element by element."""
        self.position += 1
        if self.peek() == "]":
            self.position += 1
            return
        while True:
            self.item_line = self.line()
            yield self._take_value_here()
            comma = _JSON_COMMA.match(self.window, self.position)
            if comma and comma.end() < len(self.window):  # the usual case, with one call instead of three
                self.position = comma.end()
                continue
            mark = self.peek()
            if mark not in ",]":
                raise self.error_at(self.position, message("data.json-no-comma", "expected ',' or ']'"))
            self.position += 1
            if mark == "]":
                return
            self.peek()

    def _read_block(self) -> bool:
        """Drop what has been taken and read one more block; False at the end of the file."""
        block = next(self._blocks, "")
        self.line()
        self.window, self.position, self._counted = self.window[self.position :] + block, 0, 0
        return bool(block)

    def line(self) -> int:
        """The line number of `position`."""
        self._line += self.window.count("\n", self._counted, self.position)
        self._counted = self.position
        return self._line

    def error_at(self, position: int, problem: str | Message) -> DataError:
        """The error for what stands at a position of the window."""
        line = self._line + self.window.count("\n", self._counted, position)
        return DataError(
            message(
                "data.broken-json", "{file}:{line}: not valid JSON ({problem})",
                file=self.path, line=line, problem=problem,
            ),
            _FETCH_OR_UNPACK_HINT,
        )  # fmt: skip


def decode_blocks(path: Path) -> Iterator[str]:
    """The text of a file, block by block, in the encoding that `text_encoding` finds; a gzip file is unpacked.

    Raises:
        DataError: it cannot be read, is cut, or is in no known encoding (with the line).
    """
    return text_encoding.decode_blocks(lambda: _read_blocks(path), str(path))


def _read_blocks(path: Path) -> Iterator[bytes]:
    with open_file(path) as stream:
        if stream.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC):
            yield from _unpack_blocks(stream, path)
            return
        while block := stream.read(_READ_BLOCK_BYTES):
            yield block


def _unpack_blocks(stream: BinaryIO, path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(stream) as unpacked:
            while block := unpacked.read(_READ_BLOCK_BYTES):
                yield block
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            message("data.cut-gzip", "{file}: damaged gzip file ({problem})", file=path, problem=error),
            _FETCH_OR_UNPACK_HINT,
        ) from None
