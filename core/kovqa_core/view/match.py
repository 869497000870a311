"""Predictions, matched with the rows of a split by the rules of `kovqa evaluate`.

What `kovqa predict` writes is matched by DuckDB: an id, an answer and a score a line, every id of the split once. All
else is left to the functions of `kovqa evaluate`, which know other formats and columns, join ids by images, and say
what is wrong; they need memory for all answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kovqa_core.bounded_json import MAX_LINE_CHARS, parse_json
from kovqa_core.errors import DataError
from kovqa_core.evaluate.predictions_file import (
    find_column,
    match_predictions,
    prediction_columns,
    read_predictions,
)
from kovqa_core.files import open_file
from kovqa_core.messages import message
from kovqa_core.view.inputs import ViewInputs
from kovqa_core.view.plain_lines import MAX_LINE_BYTES, link_lines, write_lines

if TYPE_CHECKING:
    import duckdb

_LINE_COLUMNS = "{id: 'JSON', answer: 'JSON', score: 'JSON', likeliest: 'JSON'}"
_CLEAN_COLUMNS = (
    "{id: 'VARCHAR', answer: 'VARCHAR', confidence: 'DOUBLE', score: 'DOUBLE', is_right: 'BOOLEAN', "
    "likeliest: 'VARCHAR'}"
)


class MatchedAnswers(NamedTuple):
    """What became of a predictions file.

    Attributes:
        unusable_scores: of its scores so many are none of 0…1; they count as missing.
        metric: of captions, the main metric's name; "" of answers.
        score: of captions, that metric of all together; None of answers, whose score is a mean.
    """

    unusable_scores: int
    metric: str = ""
    score: float | None = None


def match_answers(
    connection: duckdb.DuckDBPyConnection,
    model: str,
    path: Path,
    split: str,
    inputs: ViewInputs,
    folder: Path,
) -> MatchedAnswers:
    """Make the table `answers_MODEL` (id, answer, confidence, likeliest, score, is_right) of a predictions file.

    The last two are those of captions; answers are scored later, once for each different pair.

    Args:
        connection: with the table `raw_NUMBER` of the split.
        model: "a" or "b".
        path: the predictions.
        split: the name of the split that they answer.
        inputs: what is shown.
        folder: for temporary files.

    Raises:
        DataError: what `match_predictions` refuses.
    """
    number = list(inputs.splits).index(split)
    if inputs.task == "vqa" and not inputs.rules.question_types and _is_plain(path):
        unusable = _match_plain_lines(connection, model, path, number, folder)
        if unusable is not None:
            return MatchedAnswers(unusable)
    index_path = inputs.splits[split].path
    matched, rows = (_caption_rows if inputs.task == "caption" else _answer_rows)(path, index_path, inputs)
    lines = write_lines(rows, folder)
    connection.execute(
        f"CREATE TEMP TABLE answers_{model} AS "
        f"FROM read_ndjson(?, columns = {_CLEAN_COLUMNS}, maximum_object_size = {MAX_LINE_BYTES})",
        [str(lines)],
    )
    lines.unlink()
    return matched


def _is_plain(path: Path) -> bool:
    """Does a file look like one of `kovqa predict`: JSON lines with the columns id and answer? By its first line."""
    if not path.is_file() or path.suffix.lower() not in (".jsonl", ".ndjson"):
        return False
    with open_file(path) as stream:
        line = stream.readline(MAX_LINE_CHARS)
    try:
        row = parse_json(line)
        if not isinstance(row, dict) or find_column(row, ("caption", "captions")):
            return False
        return prediction_columns(row, "vqa") == ("id", "answer", "score")
    except ValueError:
        return False


def _match_plain_lines(
    connection: duckdb.DuckDBPyConnection, model: str, path: Path, number: int, folder: Path
) -> int | None:
    """The number of unusable scores; None: the file is not as plain as it looked, and nothing was made of it."""
    import duckdb

    table = f"answers_{model}"
    try:
        connection.execute(
            f"""CREATE TEMP TABLE {table} AS
            SELECT nfc_normalize(id ->> '$') AS id, nfc_normalize(answer ->> '$') AS answer,
                try_cast(score ->> '$' AS DOUBLE) AS confidence, likeliest::VARCHAR AS likeliest,
                NULL::DOUBLE AS score, NULL::BOOLEAN AS is_right,
                json_type(id) IS NOT DISTINCT FROM 'VARCHAR' AND json_type(answer) IS NOT DISTINCT FROM 'VARCHAR'
                    AND coalesce(json_type(score), 'NULL') IN ('NULL', 'DOUBLE', 'UBIGINT', 'BIGINT') AS is_plain
            FROM read_ndjson(?, columns = {_LINE_COLUMNS}, maximum_object_size = {MAX_LINE_BYTES})""",
            [str(link_lines(path, folder))],
        )
        is_same, unusable = connection.execute(
            f"""SELECT bool_and(is_plain) AND count(*) = count(DISTINCT id)
                AND (SELECT count(*) = count(DISTINCT id) FROM raw_{number})
                AND count(*) = (SELECT count(*) FROM raw_{number})
                AND NOT EXISTS (FROM raw_{number} ANTI JOIN {table} USING (id))
                AND EXISTS (FROM raw_{number} WHERE NOT starts_with(truth, '{{}}')),
                count(*) FILTER (NOT confidence BETWEEN 0 AND 1)
            FROM {table}"""
        ).fetchall()[0]
        if is_same:
            return int(unusable)
    except (duckdb.InvalidInputException, duckdb.ConversionException, OSError):
        pass  # no JSON, or JSON that only Python reads; OSError: a system without links
    connection.execute(f"DROP TABLE IF EXISTS {table}")
    return None


def _answer_rows(
    path: Path, index_path: Path, inputs: ViewInputs
) -> tuple[MatchedAnswers, Iterator[dict[str, object]]]:
    predictions, examples = match_predictions(
        read_predictions(path), path, index_path, inputs.rules.question_types
    )
    # Once each: a file that somebody put together may have two rows of one id, and both have its answer then.
    rows: Iterator[dict[str, object]] = (
        {
            "id": id, "answer": predictions.texts[id], "confidence": predictions.confidence.get(id),
            "likeliest": json.dumps(predictions.likeliest.get(id)),
        }
        for id in dict.fromkeys(example.id for example in examples)
    )  # fmt: skip
    return MatchedAnswers(len(predictions.unusable_scores)), rows


def _caption_rows(
    path: Path, index_path: Path, inputs: ViewInputs
) -> tuple[MatchedAnswers, Iterator[dict[str, object]]]:
    # Not at the top: the first view of answers does not wait for what only captions need.
    from kovqa_core.evaluate.caption_scores import CaptionScores
    from kovqa_core.evaluate.evaluation import evaluate_file
    from kovqa_core.evaluate.report_cards import is_right_row

    result = evaluate_file(path, index_path, question_types=inputs.rules.question_types)
    if not isinstance(result.scores, CaptionScores):
        raise DataError(
            message(
                "view.answers-to-captions",
                "{file} holds answers, and {index} is of captions",
                file=path,
                index=index_path,
            ),
            message("view.answers-to-captions.hint", "name a file of kovqa caption"),
        )
    main, predictions = result.scores.main, result.predictions
    scored = {
        example.id: (float(score), bool(right))
        for example, score, right in zip(result.examples, main.each, is_right_row(result), strict=True)
    }
    rows: Iterator[dict[str, object]] = (
        {
            "id": id, "answer": predictions.texts[id], "confidence": predictions.confidence.get(id),
            "score": score, "is_right": right,
        }
        for id, (score, right) in scored.items()
    )  # fmt: skip
    return MatchedAnswers(len(predictions.unusable_scores), main.name, float(main.score)), rows
