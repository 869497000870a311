"""Predictions as the bytes of a file, in any format of `data/write_tables.py`; `predictions_file.py` reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.example import Answer
from kovqa_core.data.write_tables import encode_table, is_json_table
from kovqa_core.evaluate.likeliest_column import LIKELIEST, likeliest_fields

# A predictions file's own columns: a column of the input that has such a name is not carried over. Those of captions in
# any case and in both tasks: a file with a column `Caption` is read as one of captions, whatever else it has.
ABSTAINED_FROM = "abstained_from"
_OWN_NAMES = ("id", "answer", "score", LIKELIEST, ABSTAINED_FROM)
_CAPTION_NAMES = ("caption", "captions")


@dataclass(frozen=True)
class PredictionRow:
    """One row of a predictions file that is to be written.

    Attributes:
        id: of the question.
        answer: what the model says.
        extra_columns: of the input, carried over where a line is a JSON object.
        all_columns: of the input, `id` among them, carried over where a row is one of a table.
    """

    id: str
    answer: Answer
    extra_columns: Mapping[str, object]
    all_columns: Mapping[str, object]


def prediction_fields(id: str, answer: Answer, task: str = "vqa") -> dict[str, object]:
    """Our columns of a prediction: id, answer or caption, score and, where it has them, abstained_from and likeliest.

    Args:
        id: of the question.
        answer: what the model says.
        task: "vqa" or "caption".
    """
    # JSON has no NaN: Python would write one that other readers refuse.
    score = None if math.isnan(answer.score) else round(answer.score, 6)
    return {
        "id": id,
        "caption" if task == "caption" else "answer": answer.text,
        "score": score,
        **({ABSTAINED_FROM: answer.abstained_from} if answer.abstained_from else {}),
        **likeliest_fields(answer),
    }


def encode_predictions(output: Path, rows: Sequence[PredictionRow], task: str = "vqa") -> bytes:
    """The bytes of a predictions file in the format of its name.

    A line of JSON is id, answer and score (and abstained_from, likeliest), then the input's columns that are none of
    ours. A table has the input's columns in their order, then ours. Of the same name, ours win.

    Args:
        output: the file.
        rows: in its order.
        task: "vqa" or "caption".
    """
    if is_json_table(output):
        return encode_table(output, [_json_fields(row, task) for row in rows])
    return encode_table(output, [_table_fields(row, task) for row in rows])


def _json_fields(row: PredictionRow, task: str) -> dict[str, object]:
    return {**prediction_fields(row.id, row.answer, task), **_without_own_names(row.extra_columns)}


def _table_fields(row: PredictionRow, task: str) -> dict[str, object]:
    # The id stands where the input has it, or first.
    placed = row.all_columns if "id" in row.all_columns else {"id": None, **row.all_columns}
    kept = {name: value for name, value in placed.items() if name == "id" or not _is_own_name(name)}
    return kept | prediction_fields(row.id, row.answer, task)


def _without_own_names(columns: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in columns.items() if not _is_own_name(name)}


def _is_own_name(name: str) -> bool:
    return name in _OWN_NAMES or name.strip().lower() in _CAPTION_NAMES
