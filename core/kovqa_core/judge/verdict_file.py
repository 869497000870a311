"""Verdicts that were given already: a file beside the predictions, one JSON line each, so that none is paid for twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError

from kovqa_core.errors import DataError
from kovqa_core.files import read_bytes
from kovqa_core.messages import message

VERDICTS_SUFFIX = ".verdicts.jsonl"


@dataclass(frozen=True)
class VerdictLine:
    """One line.

    Attributes:
        key: of what the judge was asked (`request_key`).
        id: of the row.
        judge: name of the model that was asked.
        reply: what it said.
        is_cut: did its tokens run out before its end?
    """

    key: str
    id: str
    judge: str
    reply: str
    is_cut: bool = False


_LINE = TypeAdapter(VerdictLine)


def request_key(url: str, judge: str, request: Mapping[str, object]) -> str:
    """What tells one request of one judge from all others."""
    whole = json.dumps([url, judge, request], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


def default_verdict_file(predictions: Path) -> Path:
    """Where the verdicts on a predictions file are kept."""
    return predictions.with_name(predictions.name + VERDICTS_SUFFIX)


def read_verdict_file(path: Path) -> dict[str, VerdictLine]:
    """The verdicts of a file by their keys; a torn last line, of a run that was killed, is cut off.

    Raises:
        DataError: a line that is not a verdict.
    """
    data = read_bytes(path) if path.exists() else b""
    *whole, torn = data.split(b"\n")
    lines = {}
    for number, line in enumerate(whole, 1):
        try:
            verdict = _LINE.validate_json(line, strict=True)
        except ValidationError:
            raise DataError(
                message("judge.not-a-verdict", "{file}:{line}: not a verdict", file=path, line=number),
                message("judge.not-a-verdict.hint", "move this file away: all answers are judged anew"),
            ) from None
        lines[verdict.key] = verdict
    if torn:
        os.truncate(path, len(data) - len(torn))  # in place: killed on the way, nothing else is lost
    return lines


def append_verdict(stream: BinaryIO, verdict: VerdictLine) -> None:
    """Write one line, and hand it to the system: what is only in our buffer dies with us."""
    fields = {name: value for name, value in asdict(verdict).items() if name != "is_cut" or value}
    stream.write(f"{json.dumps(fields, ensure_ascii=False)}\n".encode())
    stream.flush()
