"""What gave the answers of a predictions file, written down beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.files import file_sha256, read_json, write_json


def answers_record_path(predictions: Path) -> Path:
    """Where it is written down what gave the answers of a predictions file: beside it, hidden."""
    return predictions.with_name(f".{predictions.name}.json")


@dataclass(frozen=True)
class AnswersRecord:
    """What gave the answers of a predictions file.

    Attributes:
        fingerprint: all that they depend on, besides the rows.
        row_digests: what each answer was given to, in the file's order; empty: an earlier version wrote it.
    """

    fingerprint: Mapping[str, object]
    row_digests: Sequence[str] = ()


def write_answers_record(predictions: Path, contents: bytes, record: AnswersRecord) -> None:
    """Write down what gave the answers of a predictions file that is about to be written.

    Args:
        predictions: the file.
        contents: that it will have.
        record: what gave them; JSON values.
    """
    fields = {
        "schema": 1,
        "sha256": hashlib.sha256(contents).hexdigest(),
        "fingerprint": record.fingerprint,
        "rows": " ".join(record.row_digests),
    }
    write_json(answers_record_path(predictions), fields)


def read_answers_record(predictions: Path) -> AnswersRecord | None:
    """What gave the answers of a predictions file; None: not written down, or the file was changed since."""
    path = answers_record_path(predictions)
    record = read_json(path) if path.is_file() else None
    digest = file_sha256(predictions)
    if not isinstance(record, dict) or record.get("sha256") != digest:
        return None
    fingerprint = record.get("fingerprint")
    if not isinstance(fingerprint, dict):
        return None
    return AnswersRecord(fingerprint, str(record.get("rows", "")).split())
