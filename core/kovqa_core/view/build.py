"""The database behind the page: every row of the splits as numbers, texts once each.

    rows       a row of a split: its line, id, and the numbers of its question, type, best true answer; of each model
               (a_, b_) its answer, the number of the form in which that was compared, its score, whether it is right,
               and how sure the model was
    questions, types, texts    number -> text (and its lower case, which is searched)
    trained    number of a best true answer -> training rows that have it
    facts      one JSON text: what else the page says

All else of a row (image, all answers, choices) is read from its line when it is shown (`index/reader.py`). DuckDB
reads JSON lines itself, on all cores; a file that it cannot read, or would read otherwise than Python, is written anew
as plain lines first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovqa_core.data.example import Example
from kovqa_core.errors import DataError
from kovqa_core.index.reader import IndexSplit
from kovqa_core.messages import Message, message
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.view.engine import engine_errors, open_new_database
from kovqa_core.view.inputs import ViewInputs, sample_ids, split_order
from kovqa_core.view.match import match_answers
from kovqa_core.view.plain_lines import MAX_LINE_BYTES, link_lines, write_lines
from kovqa_core.view.scoring import RIGHT_SCORE, TRUTH_MARK, best_forms, score_pairs

if TYPE_CHECKING:
    import duckdb

MODELS = ("a", "b")
DATABASE_FILE = "view.duckdb"
_FETCHED_ROWS = 10_000
_CHECKED_LINES = 100  # of a split: is each where DuckDB says that it is?
_ROW_COLUMNS = (
    "{id: 'VARCHAR', question: 'VARCHAR', kind: 'VARCHAR', answers: 'JSON', annotations: 'JSON', "
    "captions: 'VARCHAR[]'}"
)
# Of a caption's row the captions are searched in the place of a question.
_RAW_ROWS = f"""
    SELECT id, coalesce(nullif(question, ''), array_to_string(captions, chr(10)), '') AS question,
        coalesce(kind, '') AS type,
        coalesce(answers::VARCHAR, '{{}}') || chr({ord(TRUTH_MARK)}) || coalesce(annotations::VARCHAR, '[]') AS truth
    FROM read_ndjson(?, columns = {_ROW_COLUMNS}, maximum_object_size = {MAX_LINE_BYTES})
"""


def build_database(
    inputs: ViewInputs,
    folder: Path,
    on_progress: OnProgress = ignore_progress,
    on_open: Callable[[duckdb.DuckDBPyConnection], None] = lambda connection: None,
) -> Path:
    """Read everything, score it, and write the database.

    Args:
        inputs: what is shown.
        folder: an empty one, for the database and for what is needed on the way.
        on_progress: may raise, which ends it.
        on_open: told of the connection, whose `interrupt` ends a query.

    Raises:
        DataError: a line that is none of an index or of predictions; ids missing, foreign or double, as
            `kovqa evaluate` says it; predictions that answer different splits.
        MachineError: no room on the disk or in memory.
    """
    path, steps = folder / DATABASE_FILE, _Steps(on_progress, 3 + len(inputs.predictions))
    with engine_errors(folder), open_new_database(path) as connection:
        on_open(connection)
        steps.begin(message("view.step-index", "reading the index"))
        for number, split in enumerate(inputs.splits.values()):
            _load_split(connection, number, split, folder)
        steps.begin(message("view.step-texts", "collecting questions and answers"))
        _collect_texts(connection, inputs, folder, steps)
        answered = _find_answered_split(connection, inputs)
        facts: list[object] = []
        for model, predictions in zip(MODELS, inputs.predictions, strict=False):
            steps.begin(message("view.step-predictions", "comparing {file}", file=predictions.name))
            matched = match_answers(connection, model, predictions, answered, inputs, folder)
            _score_answers(connection, model, list(inputs.splits).index(answered), inputs, folder, steps)
            facts.append(matched._asdict())
        steps.begin(message("view.step-rows", "writing the database"))
        _write_rows(connection, inputs, answered)
        document = json.dumps({"answered_split": answered, "predictions": facts})
        connection.execute("CREATE TABLE facts AS SELECT ?::VARCHAR AS document", [document])
        connection.execute("CHECKPOINT")
    return path


class _Steps:
    """What is being done, told once a step."""

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._on_progress = on_progress
        self._now = Progress("", 0, total, "steps")

    def begin(self, stage: Message) -> None:
        done = self._now.done + 1 if self._now.stage else 0
        self._now = replace(self._now, stage=stage, done=done)
        self.repeat()

    def repeat(self) -> None:
        """Say it again: who listens may want it to end."""
        self._on_progress(self._now)


def _load_split(connection: duckdb.DuckDBPyConnection, number: int, split: IndexSplit, folder: Path) -> None:
    """Make the table `raw_NUMBER`, whose rowid is the line's number."""
    import duckdb

    create = f"CREATE TEMP TABLE raw_{number} AS {_RAW_ROWS}"
    try:
        connection.execute(create, [str(link_lines(split.path, folder))])
        if _lines_in_place(connection, number, split):
            return
    except (duckdb.InvalidInputException, duckdb.ConversionException, OSError):
        pass  # no JSON, or JSON that only Python reads; OSError: a system without links
    connection.execute(f"DROP TABLE IF EXISTS raw_{number}")
    # A line that is none of an index is named here.
    lines = write_lines(map(_plain_row, split), folder)
    connection.execute(create, [str(lines)])
    lines.unlink()


def _plain_row(example: Example) -> Mapping[str, object]:
    return {
        "id": example.id, "question": example.question, "kind": example.question_type, "answers": example.answers,
        "annotations": example.annotations, "captions": example.captions,
    }  # fmt: skip


def _lines_in_place(connection: duckdb.DuckDBPyConnection, number: int, split: IndexSplit) -> bool:
    """Has DuckDB found as many lines as there are, and each under its number? Of some of them it is seen."""
    rows = len(split)
    numbers = sorted({rows * n // _CHECKED_LINES for n in range(_CHECKED_LINES)} | {rows - 1})
    query = f"SELECT rowid, id FROM raw_{number} WHERE rowid IN (SELECT unnest(?))"
    found = connection.execute(query, [numbers]).fetchall()
    count = connection.execute(f"SELECT count(id) FROM raw_{number}").fetchall()[0][0]
    return count == rows and dict(found) == {n: split[n].id for n in numbers}


def _collect_texts(
    connection: duckdb.DuckDBPyConnection, inputs: ViewInputs, folder: Path, steps: _Steps
) -> None:
    """Make the tables `questions`, `types` and `truths`, the last with the best answer of each."""
    union = " UNION ALL ".join(f"FROM raw_{number}" for number in range(len(inputs.splits)))
    for table, column in (("questions", "question"), ("types", "type")):
        connection.execute(
            f"""CREATE TABLE {table} AS SELECT (row_number() OVER ())::UINTEGER AS number, {column} AS text,
                lower({column}) AS folded FROM (SELECT DISTINCT {column} FROM ({union}))"""
        )
    connection.execute(
        f"""CREATE TEMP TABLE plain_truths AS SELECT (row_number() OVER ())::UINTEGER AS number, truth
        FROM (SELECT DISTINCT truth FROM ({union}))"""
    )
    truths = _fetch(connection, "SELECT number, truth FROM plain_truths", steps)
    rows = ({"number": number, "best": best} for number, best in best_forms(truths, inputs.rules.scorer()))
    _load_lines(connection, "best_forms", "{number: 'UINTEGER', best: 'VARCHAR'}", write_lines(rows, folder))
    connection.execute("CREATE TEMP TABLE truths AS FROM plain_truths JOIN best_forms USING (number)")


def _fetch(connection: duckdb.DuckDBPyConnection, query: str, steps: _Steps) -> Iterator[tuple[Any, ...]]:
    """Rows of a query, some at a time: there may be millions."""
    result = connection.execute(query)
    while rows := result.fetchmany(_FETCHED_ROWS):
        steps.repeat()
        yield from rows


def _load_lines(connection: duckdb.DuckDBPyConnection, table: str, columns: str, lines: Path) -> None:
    connection.execute(
        f"CREATE TEMP TABLE {table} AS FROM read_ndjson(?, columns = {columns}, maximum_object_size = {MAX_LINE_BYTES})",
        [str(lines)],
    )
    lines.unlink()


def _find_answered_split(connection: duckdb.DuckDBPyConnection, inputs: ViewInputs) -> str:
    """The split that the predictions answer; "" without any. A split that the user named is it."""
    if not inputs.predictions or inputs.named_split:
        return inputs.named_split
    found = [_split_of_ids(connection, sample_ids(path), inputs) for path in inputs.predictions]
    if len(set(found)) > 1:
        (first, first_split), (second, second_split) = zip(inputs.predictions, found, strict=True)
        raise DataError(
            message(
                "view.different-splits", "{first} answers {first_split}, {second} answers {second_split}",
                first=first, first_split=first_split, second=second, second_split=second_split,
            ),
            message("view.different-splits.hint", "compare two files that answer the same split"),
        )  # fmt: skip
    return found[0]


def _split_of_ids(connection: duckdb.DuckDBPyConnection, ids: list[str], inputs: ViewInputs) -> str:
    """The split that has most of these ids; of equals, test before val before train."""
    names = list(inputs.splits)

    def count(name: str) -> int:
        query = f"SELECT count(*) FROM raw_{names.index(name)} WHERE id IN (SELECT unnest(?::VARCHAR[]))"
        return int(connection.execute(query, [ids]).fetchall()[0][0])

    return max(split_order(inputs.splits), key=count)


def _score_answers(
    connection: duckdb.DuckDBPyConnection,
    model: str,
    number: int,
    inputs: ViewInputs,
    folder: Path,
    steps: _Steps,
) -> None:
    """Make the table `scored_MODEL` (line, answer, form, confidence, likeliest, score, is_right)."""
    answers = f"(SELECT a.* EXCLUDE (id), r.rowid AS line, r.truth FROM raw_{number} r JOIN answers_{model} a USING (id))"
    if inputs.task == "caption":
        connection.execute(
            f"""CREATE TEMP TABLE scored_{model} AS SELECT * EXCLUDE (truth), answer AS form FROM {answers}"""
        )
        return
    pairs = _fetch(
        connection,
        f"SELECT DISTINCT t.number, t.truth, a.answer FROM {answers} a JOIN truths t USING (truth)",
        steps,
    )
    rows = (pair._asdict() for pair in score_pairs(pairs, inputs.rules.scorer()))
    columns = "{truth: 'UINTEGER', answer: 'VARCHAR', form: 'VARCHAR', score: 'DOUBLE'}"
    _load_lines(connection, f"pairs_{model}", columns, write_lines(rows, folder))
    connection.execute(
        f"""CREATE TEMP TABLE scored_{model} AS
        SELECT a.line, a.answer, a.likeliest, p.form, p.score, p.score >= {RIGHT_SCORE} AS is_right,
            CASE WHEN a.confidence BETWEEN 0 AND 1 THEN a.confidence END AS confidence
        FROM {answers} a JOIN truths t USING (truth) JOIN pairs_{model} p ON p.truth = t.number AND p.answer = a.answer"""
    )
    connection.execute(f"DROP TABLE answers_{model}; DROP TABLE pairs_{model}")


def _write_rows(connection: duckdb.DuckDBPyConnection, inputs: ViewInputs, answered: str) -> None:
    """Make the tables `texts`, `rows` and `trained`."""
    models = MODELS[: len(inputs.predictions)]
    forms = " UNION ".join(
        ["SELECT best AS form FROM truths", *(f"SELECT form FROM scored_{m}" for m in models)]
    )
    connection.execute(
        f"""CREATE TABLE texts AS SELECT (row_number() OVER ())::UINTEGER AS number, form AS text, lower(form) AS folded
        FROM ({forms}) WHERE form IS NOT NULL"""
    )
    answers = {model: f"scored_{model}" for model in models}
    connection.execute(f"CREATE TABLE rows AS {_split_query(0, {})} LIMIT 0")
    for number, split in enumerate(inputs.splits):
        query = _split_query(number, answers if split == answered else {})
        connection.execute(f"INSERT INTO rows {query} ORDER BY line")
    train = list(inputs.splits).index("train") if "train" in inputs.splits else -1
    connection.execute(
        "CREATE TABLE trained AS SELECT best, count(*)::UINTEGER AS times FROM rows WHERE split = ? AND best IS NOT NULL "
        "GROUP BY best",
        [train],
    )


def _split_query(number: int, answers: Mapping[str, str]) -> str:
    """Rows of a split as `rows` has them.

    Args:
        number: of the split.
        answers: model -> the table of its answers; empty columns for those that are not there.
    """
    columns, joins = "", ""
    for model in MODELS:
        if model in answers:
            columns += (
                f", {model}.answer AS {model}_answer, {model}_texts.number AS {model}_form, {model}.score AS {model}_score, "
                f"{model}.is_right AS {model}_right, {model}.confidence AS {model}_confidence, "
                f"{model}.likeliest AS {model}_likeliest"
            )
            joins += (
                f" LEFT JOIN {answers[model]} {model} ON {model}.line = r.rowid "
                f"LEFT JOIN texts {model}_texts ON {model}_texts.text = {model}.form"
            )
        else:
            columns += (
                f", NULL::VARCHAR AS {model}_answer, NULL::UINTEGER AS {model}_form, NULL::DOUBLE AS {model}_score, "
                f"NULL::BOOLEAN AS {model}_right, NULL::DOUBLE AS {model}_confidence, NULL::VARCHAR AS {model}_likeliest"
            )
    return f"""SELECT {number}::UTINYINT AS split, r.rowid::UINTEGER AS line, r.id, q.number AS question,
            y.number AS type, best_texts.number AS best{columns}
        FROM raw_{number} r JOIN questions q ON q.text = r.question JOIN types y ON y.text = r.type
            JOIN truths t ON t.truth = r.truth LEFT JOIN texts best_texts ON best_texts.text = t.best{joins}"""
