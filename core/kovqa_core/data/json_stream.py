"""Lists of records in JSON files of any size, one record after the other in bounded memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Sequence
from json.scanner import make_scanner
from pathlib import Path
from typing import IO, Any

from kovqa_core.errors import DataError

_READ_BLOCK_BYTES = 1 << 22  # bytes read at once
_MAX_VALUE_CHARS = 1 << 26  # characters one value may have; a broken file is not read to its end
_JSON_WHITESPACE = re.compile(r"[ \t\r\n]*")
_scan_value = make_scanner(json.JSONDecoder())  # type: ignore[arg-type]  # typeshed takes it for itself
TEXT_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)  # numbers as written
_scan_text = make_scanner(TEXT_DECODER)  # type: ignore[arg-type]
_FETCH_OR_UNPACK_HINT = "fetch or unpack it again"


def iter_json_records(path: Path, name: str, keys: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The records of the list `name` in a JSON object.

    Args:
        path: UTF-8 (with or without a byte-order mark) or CP949.
        name: key of the list; a list in another place, or a second one, is passed over.
        keys: what every record must have.

    Raises:
        DataError: no such list, broken JSON (with its line), a record that lacks a key.
    """
    text = _JsonWindow(path)
    found = False
    if text.next() == "{":
        text.at += 1
        while (mark := text.next()) != "}":
            text.at += mark == ","
            key = text.value()
            text.expect(":")
            if text.next() != "[":
                text.value()
                continue
            wanted, found = key == name and not found, found or key == name
            for number, row in enumerate(text.items(), 1):
                if wanted:
                    _check_record_keys(row, keys, path, number)
                    yield row
        text.at += 1
        if text.next(may_end=True):
            raise text.broken("text after its end", text.at)
    if not found:
        raise DataError(f"{path}: no list '{name}'", _FETCH_OR_UNPACK_HINT)


def iter_json_list(path: Path, as_text: bool = False) -> Iterator[tuple[int, Any]]:
    """Line number and value of every element of a JSON document that is a list.

    Args:
        path: UTF-8 (with or without a byte-order mark) or CP949.
        as_text: numbers as the text they are written with: 1.0 stays "1.0".

    Raises:
        DataError: not a list, broken JSON (with its line).
    """
    text = _JsonWindow(path, _scan_text if as_text else _scan_value)
    if text.next() != "[":
        raise DataError(f"{path}:{text.line()}: not a JSON list", _FETCH_OR_UNPACK_HINT)
    yield from ((text.began, value) for value in text.items())
    if text.next(may_end=True):
        raise text.broken("text after its end", text.at)


def _check_record_keys(row: Any, keys: Sequence[str], path: Path, number: int) -> None:
    for key in keys:
        if not isinstance(row, dict) or key not in row:
            raise DataError(f"{path}: record {number} lacks '{key}'", _FETCH_OR_UNPACK_HINT)


class _JsonWindow:
    """The text of a file as a window that moves on; `at` is the place in it, `began` a value's line."""

    def __init__(self, path: Path, scan: Callable[[str, int], tuple[Any, int]] = _scan_value) -> None:
        self.path, self.window, self.at, self._scan = path, "", 0, scan
        self.began = 1
        self._lines, self._counted = 1, 0  # the line number at a place up to which lines are counted
        self._blocks = decode_blocks(path)
        self._more()
        if not self.next(may_end=True):
            raise DataError(f"{path} is empty", _FETCH_OR_UNPACK_HINT)

    def next(self, may_end: bool = False) -> str:
        """The next character that is no blank, not taken."""
        while True:
            blank = _JSON_WHITESPACE.match(self.window, self.at)
            self.at = blank.end() if blank else self.at
            if self.at < len(self.window):
                return self.window[self.at]
            if not self._more():
                if may_end:
                    return ""
                raise self.broken("it ends too early", self.at)

    def expect(self, mark: str) -> None:
        """Take one character."""
        if self.next() != mark:
            raise self.broken(f"expected '{mark}'", self.at)
        self.at += 1

    def value(self) -> Any:
        """Take one value."""
        self.next()
        while True:
            try:
                found, end = self._scan(self.window, self.at)
            except StopIteration as error:
                broken = self.broken("expected a value", int(error.value))
            except json.JSONDecodeError as error:
                broken = self.broken(error.msg, error.pos)
            else:
                cut = end == len(self.window) and isinstance(found, int | float)  # 12 of 123
                if not (cut and self._more()):
                    self.at = end
                    return found
                continue
            if len(self.window) - self.at > _MAX_VALUE_CHARS or not self._more():
                raise broken

    def items(self) -> Iterator[Any]:
        """Take a list, value by value."""
        self.at += 1
        if self.next() == "]":
            self.at += 1
            return
        while True:
            self.next()
            self.began = self.line()
            yield self.value()
            mark = self.next()
            if mark not in ",]":
                raise self.broken("expected ',' or ']'", self.at)
            self.at += 1
            if mark == "]":
                return

    def _more(self) -> bool:
        """Drop what is taken, read one block on; False at the end."""
        block = next(self._blocks, "")
        self.line()
        self.window, self.at, self._counted = self.window[self.at :] + block, 0, 0
        return bool(block)

    def line(self) -> int:
        """The line number of `at`."""
        self._lines += self.window.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._lines

    def broken(self, problem: str, place: int) -> DataError:
        """The error for what stands at a place of the window."""
        line = self._lines + self.window.count("\n", self._counted, place)
        return DataError(f"{self.path}:{line}: not valid JSON ({problem})", _FETCH_OR_UNPACK_HINT)


def decode_blocks(path: Path) -> Iterator[str]:
    """The file's text, block by block; CP949 where it is no UTF-8 from its first other letter on.

    Raises:
        DataError: it cannot be read, or is in neither encoding (with the line).
    """
    decoder: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8-sig")()
    ascii_so_far, lines = True, 1
    with _open_binary(path) as stream:
        while True:
            block = stream.read(_READ_BLOCK_BYTES)
            try:
                text = decoder.decode(block, not block)
            except UnicodeDecodeError as error:
                legacy = codecs.getincrementaldecoder("cp949")()
                try:
                    if not ascii_so_far:
                        raise
                    text, decoder = legacy.decode(block, not block), legacy
                except UnicodeDecodeError:
                    line = lines + block.count(b"\n", 0, error.start)
                    raise DataError(
                        f"{path}:{line}: neither UTF-8 nor CP949 text", "save it as UTF-8 and try again"
                    ) from None
            ascii_so_far = ascii_so_far and text.isascii()
            lines += block.count(b"\n")
            if text:
                yield text
            if not block:
                return


def _open_binary(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from None
