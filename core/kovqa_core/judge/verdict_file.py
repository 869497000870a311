"""Verdicts that were given already: a file beside the predictions, one JSON line each, so that none is paid for twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from kovqa_core.bounded_json import parse_json
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
    """

    key: str
    id: str
    judge: str
    reply: str


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
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    lines = {}
    for number, line in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            verdict = VerdictLine(**parse_json(line))
        except (ValueError, TypeError):
            raise DataError(
                message("judge.not-a-verdict", "{file}:{line}: not a verdict", file=path, line=number),
                message("judge.not-a-verdict.hint", "name another file with --verdicts, or remove this one"),
            ) from None
        lines[verdict.key] = verdict
    return lines


def append_verdict(stream: BinaryIO, verdict: VerdictLine) -> None:
    """Write one line, and hand it to the system: what is only in our buffer dies with us."""
    stream.write(f"{json.dumps(asdict(verdict), ensure_ascii=False)}\n".encode())
    stream.flush()
