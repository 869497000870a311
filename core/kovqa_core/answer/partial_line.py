"""One line of an unfinished predictions file: an answer and the digest of the row that it answers, or a fault."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.data.example import Answer, json_line
from kovqa_core.errors import DataError
from kovqa_core.evaluate.likeliest_column import LIKELIEST, parse_likeliest
from kovqa_core.messages import message

_DIGEST_KEY = "row_digest"  # of a line: see `digest_row`
FILLED = "filled"  # the digest of a row that has a text for want of an answer: the next start tries it again
FAULT_KEY = "left_out"  # of a line: what is wrong with a row that has no answer


@dataclass(frozen=True)
class PartialLine:
    """A line of a partial file; without a digest, of an earlier version."""

    digest: str
    fields: Mapping[str, object]

    @property
    def id(self) -> str:
        """Of the row."""
        return str(self.fields["id"])

    @property
    def is_fault(self) -> bool:
        """Has the row no answer?"""
        # A column of the input may have the same name; but then the line has a score as well.
        return self.fields.keys() == {"id", FAULT_KEY}

    @property
    def answer(self) -> Answer:
        """What was answered."""
        fields = self.fields
        score = fields.get("score")
        return Answer(
            str(fields.get("answer", fields.get("caption", ""))),
            score if isinstance(score, float | int) else math.nan,
            parse_likeliest(fields.get(LIKELIEST)),
        )

    def encode(self) -> bytes:
        """The line with its end."""
        return f"{json_line({**self.fields, _DIGEST_KEY: self.digest})}\n".encode()


def parse_lines(data: bytes, path: Path) -> Iterator[PartialLine]:
    """The lines of a partial file; raises as `_parse_line`."""
    # Not splitlines(): it would split at a bare carriage return, too.
    for number, line in enumerate(data.split(b"\n"), 1):
        if line:
            yield _parse_line(line, f"{path}:{number}")


def _parse_line(line: bytes, place: str) -> PartialLine:
    """A line of a partial file.

    Raises:
        DataError: it is none, though it is whole: something else than a kill damaged it.
    """
    try:
        fields = parse_json(line)
    except ValueError:
        fields = None
    if not (isinstance(fields, dict) and isinstance(fields.get("id"), str)):
        raise DataError(
            message("answer.damaged-line", "{place}: not a line of unfinished predictions", place=place),
            message("answer.damaged-line.hint", "remove this line: its row is answered again"),
        )
    return PartialLine(str(fields.pop(_DIGEST_KEY, "")), fields)
