"""What gave the answers of a predictions file, written down beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from kovqa_core.files import read_json, write_json


def answers_record_path(predictions: Path) -> Path:
    """Where it is written down what gave the answers of a predictions file: beside it, hidden."""
    return predictions.with_name(f".{predictions.name}.json")


def write_answers_record(predictions: Path, contents: bytes, fingerprint: Mapping[str, object]) -> None:
    """Write down what gave the answers of a predictions file that is about to be written.

    Args:
        predictions: the file.
        contents: that it will have.
        fingerprint: all that they depend on; JSON values.
    """
    record = {"schema": 1, "sha256": hashlib.sha256(contents).hexdigest(), "fingerprint": fingerprint}
    write_json(answers_record_path(predictions), record)


def read_answers_record(predictions: Path) -> Mapping[str, object] | None:
    """What gave the answers of a predictions file; None: not written down, or the file was changed since."""
    path = answers_record_path(predictions)
    record = read_json(path) if path.is_file() else None
    with predictions.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not isinstance(record, dict) or record.get("sha256") != digest:
        return None
    fingerprint = record.get("fingerprint")
    return fingerprint if isinstance(fingerprint, dict) else None
