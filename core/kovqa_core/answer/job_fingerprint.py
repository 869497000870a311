"""What the answers of a job depend on, besides each row: JSON values, by which an interrupted job is known again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.answer.model_digest import digest_model
from kovqa_core.errors import ModelError
from kovqa_core.messages import message

if TYPE_CHECKING:
    from kovqa_core.answer.job import AnswerJob, AnswerOptions
    from kovqa_core.answer.question_rows import QuestionRow


def model_fingerprint(folder: Path, options: AnswerOptions) -> dict[str, object]:
    """What the answers of a step folder's model depend on, and where it lies (`model`), by which it is only named.

    Raises:
        ModelError: the folder holds no model.
    """
    description = next((p for name in ("kovqa.json", "config.json") if (p := folder / name).is_file()), None)
    if description is None:
        raise ModelError(
            message("answer.no-model", "no kovqa model in {folder}", folder=folder),
            message("answer.no-model.hint", "give a run folder or one of its step folders"),
        )
    return {
        "model": str(folder.resolve()),
        "weights": digest_model(folder),
        description.name: hashlib.sha256(description.read_bytes()).hexdigest(),
        "beams": options.num_beams,
        "decoding": options.decoding.json_fields(),
    }


def table_fingerprint(job: AnswerJob, rows: Sequence[QuestionRow]) -> dict[str, object]:
    """What the answers of a job depend on besides the model: the table and which of its rows are asked."""
    # A folder of images has no bytes of its own: its rows, which are the names in it, stand for them.
    if job.table.is_dir():
        table = hashlib.sha256("\n".join(row.example.line() for row in rows).encode())
    else:  # in blocks: images may lie in it
        with job.table.open("rb") as stream:
            table = hashlib.file_digest(stream, "sha256")
    columns = {"columns": dict(sorted(job.columns.items()))} if job.columns else {}
    return {
        "table": table.hexdigest(),
        "kinds": sorted({row.question_type for row in rows}),
        **columns,
    }
