"""What a table to answer is: an interrupted job goes on with the same one alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.files import file_sha256


def table_fingerprint(
    table: Path, columns: Mapping[str, str], rows: Sequence[QuestionRow]
) -> dict[str, object]:
    """What the answers of a job depend on besides the model: JSON values, by which an interrupted job is known again.

    Args:
        table: the file, or a folder of images.
        columns: our name of a column -> the table's.
        rows: those of it that are asked.
    """
    # A folder of images has no bytes of its own: its rows, which are the names in it, stand for them.
    if table.is_dir():
        digest = hashlib.sha256("\n".join(row.example.line() for row in rows).encode()).hexdigest()
    else:
        digest = file_sha256(table)
    named_columns = {"columns": dict(sorted(columns.items()))} if columns else {}
    return {
        "table": digest,
        "kinds": sorted({row.question_type for row in rows}),
        **named_columns,
    }
