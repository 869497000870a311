"""What the page's tables and charts count, of the rows that a filter leaves."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kovqa_core.evaluate.answer_statistics import TRAINING_COUNT_BINS
from kovqa_core.evaluate.calibration import CALIBRATION_BINS
from kovqa_core.view.filters import ROWS_OF_A_PAGE, RowFilter, filter_condition

if TYPE_CHECKING:
    import duckdb

_FETCHED_ROWS = 1000  # of an export, at a time
TABLE_LINES = 50  # of a table of answers, pairs or questions: the most frequent ones


class ViewQueries:
    """Questions to a finished database; every method may be called from any thread.

    Args:
        connection: of `open_finished_database`.
        splits: their names, by number.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, splits: Sequence[str]) -> None:
        self._connection, self._splits = connection, splits
        self._cursors: set[duckdb.DuckDBPyConnection] = set()

    @property
    def is_busy(self) -> bool:
        """Is a query running, or an export?"""
        return bool(self._cursors)

    def interrupt(self) -> None:
        """End the queries that are running."""
        for cursor in tuple(self._cursors):
            cursor.interrupt()

    @contextlib.contextmanager
    def _open_cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own: requests do not wait for one another."""
        cursor = self._connection.cursor()
        self._cursors.add(cursor)
        try:
            yield cursor
        finally:
            self._cursors.discard(cursor)
            cursor.close()

    def _ask(self, query: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        with self._open_cursor() as cursor:
            result = cursor.execute(query, list(values))
            names = [column[0] for column in result.description or ()]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def _count(self, query: str, chosen: RowFilter, *more: object) -> list[dict[str, Any]]:
        """A query with `{where}` in it; what it needs besides comes after the filter's values."""
        condition = filter_condition(chosen, self._splits)
        return self._ask(query.format(where=condition.sql), [*condition.values, *more])

    def facts(self) -> str:
        """What the database says about its making, as JSON."""
        return str(self._ask("FROM facts")[0]["document"])

    def summary(self, chosen: RowFilter) -> Mapping[str, object]:
        """How many rows there are, and how good each model is on them."""
        return self._count(
            """SELECT count(*) AS rows, count(a_answer) AS a_rows, count(b_answer) AS b_rows,
                avg(a_score) AS a_score, avg(b_score) AS b_score,
                count(*) FILTER (a_right) AS a_right, count(*) FILTER (b_right) AS b_right,
                count(*) FILTER (a_right AND b_right) AS both_right,
                count(*) FILTER (a_right AND NOT b_right) AS only_a,
                count(*) FILTER (b_right AND NOT a_right) AS only_b,
                count(*) FILTER (NOT a_right AND NOT b_right) AS neither,
                count(*) FILTER (a_form <> b_form) AS different
            FROM rows WHERE {where}""",
            chosen,
        )[0]

    def split_types(self) -> list[str]:
        """The question types, the most frequent first."""
        rows = self._ask(
            "SELECT text FROM (SELECT type, count(*) AS times FROM rows GROUP BY type) JOIN types ON number = type "
            "ORDER BY times DESC, text"
        )
        return [row["text"] for row in rows]

    def rows(self, chosen: RowFilter, page: int) -> list[dict[str, Any]]:
        """Rows of a page, from the lines of the splits' files."""
        return self._count(
            f"""SELECT split, line, a_answer, a_score, a_right, a_confidence, b_answer, b_score, b_right, b_confidence
            FROM rows WHERE {{where}} ORDER BY {chosen.order} LIMIT {ROWS_OF_A_PAGE} OFFSET ?""",
            chosen,
            page * ROWS_OF_A_PAGE,
        )

    def all_rows(self, chosen: RowFilter) -> Iterator[tuple[Any, ...]]:
        """The rows of an export, in the filter's order."""
        condition = filter_condition(chosen, self._splits)
        with self._open_cursor() as cursor:
            cursor.execute(
                f"""SELECT split, line, (SELECT text FROM texts WHERE number = best) AS best,
                    a_answer, a_score, a_confidence, b_answer, b_score, b_confidence
                FROM rows WHERE {condition.sql} ORDER BY {chosen.order}""",
                list(condition.values),
            )
            while found := cursor.fetchmany(_FETCHED_ROWS):
                yield from found

    def row(self, split: int, line: int) -> dict[str, Any] | None:
        """One row; None: there is none."""
        found = self._ask(
            """SELECT r.* EXCLUDE (question, type, best, a_form, b_form), b.text AS best, coalesce(t.times, 0) AS trained
            FROM rows r LEFT JOIN texts b ON b.number = r.best LEFT JOIN trained t ON t.best = r.best
            WHERE split = ? AND line = ?""",
            [split, line],
        )
        return found[0] if found else None

    def answers(self, chosen: RowFilter) -> list[dict[str, Any]]:
        """How often each answer is the true one, and how often each model gives it: the most frequent ones."""
        return self._count(
            f"""WITH chosen AS (SELECT best, a_form, b_form, a_right FROM rows WHERE {{where}}),
            counts AS (
                SELECT form, sum(t)::BIGINT AS true_rows, sum(a)::BIGINT AS a_rows, sum(b)::BIGINT AS b_rows
                FROM (SELECT best AS form, count(*) AS t, 0 AS a, 0 AS b FROM chosen GROUP BY best
                    UNION ALL SELECT a_form, 0, count(*), 0 FROM chosen GROUP BY a_form
                    UNION ALL SELECT b_form, 0, 0, count(*) FROM chosen GROUP BY b_form)
                WHERE form IS NOT NULL GROUP BY form)
            SELECT text AS answer, true_rows, a_rows, b_rows, (SELECT count(*) FROM counts) AS answers
            FROM counts JOIN texts ON number = form
            ORDER BY greatest(true_rows, a_rows, b_rows) DESC, text LIMIT {TABLE_LINES}""",
            chosen,
        )

    def frequency(self, chosen: RowFilter) -> list[dict[str, Any]]:
        """How good each model is, by how many training rows have the true answer."""
        steps = "".join(
            f" WHEN times < {high} THEN {low}" for low, high in itertools.pairwise(TRAINING_COUNT_BINS)
        )
        return self._count(
            f"""WITH chosen AS (SELECT best, a_score, b_score FROM rows WHERE best IS NOT NULL AND ({{where}})),
            counted AS (SELECT chosen.*, coalesce(trained.times, 0) AS times FROM chosen LEFT JOIN trained USING (best))
            SELECT CASE{steps} ELSE {TRAINING_COUNT_BINS[-1]} END AS low, count(*) AS rows, count(DISTINCT best) AS answers,
                avg(a_score) AS a_score, avg(b_score) AS b_score
            FROM counted GROUP BY low ORDER BY low""",
            chosen,
        )

    def calibration(self, chosen: RowFilter, model: str) -> list[dict[str, Any]]:
        """Rows, mean confidence and mean score by confidence, in `CALIBRATION_BINS` equal steps.

        Args:
            chosen: the rows.
            model: "a" or "b".
        """
        return self._count(
            f"""SELECT least(floor({model}_confidence * {CALIBRATION_BINS}), {CALIBRATION_BINS - 1})::INTEGER AS bin,
                count(*) AS rows, avg({model}_confidence) AS confidence, avg({model}_score) AS score
            FROM rows WHERE {model}_confidence IS NOT NULL AND {model}_score IS NOT NULL AND ({{where}})
            GROUP BY bin ORDER BY bin""",
            chosen,
        )

    def confusion(self, chosen: RowFilter, model: str) -> list[dict[str, Any]]:
        """The most frequent pairs of a true answer and a wrong one.

        Args:
            chosen: the rows.
            model: "a" or "b".
        """
        return self._count(
            f"""SELECT t.text AS true_answer, g.text AS given, times AS rows, all_rows
            FROM (SELECT best, {model}_form AS form, count(*) AS times FROM rows
                WHERE NOT {model}_right AND best IS NOT NULL AND ({{where}}) GROUP BY best, form
                ORDER BY times DESC, best, form LIMIT {TABLE_LINES})
            JOIN texts t ON t.number = best JOIN texts g ON g.number = form
            JOIN (SELECT best AS each, count(*) AS all_rows FROM rows WHERE {model}_form IS NOT NULL GROUP BY best)
                ON each = best
            ORDER BY times DESC, t.text, g.text""",
            chosen,
        )

    def questions(self, chosen: RowFilter) -> list[dict[str, Any]]:
        """Questions that are asked of many images: how many, how good, and the commonest answers."""
        # Answers are counted for the questions of the table alone: for all of them it takes ten times as long.
        return self._count(
            f"""WITH chosen AS (SELECT question, best, a_form, b_form, a_score, b_score FROM rows WHERE {{where}}),
            asked AS (SELECT question AS number, count(*) AS times FROM chosen GROUP BY question
                ORDER BY times DESC, question LIMIT {TABLE_LINES}),
            answered AS (SELECT question, avg(a_score) AS a_score, avg(b_score) AS b_score, count(DISTINCT best) AS answers,
                    mode(best) AS best, mode(a_form) AS a_form, mode(b_form) AS b_form
                FROM chosen WHERE question IN (SELECT number FROM asked) GROUP BY question)
            SELECT q.text AS question, times AS rows, d.a_score, d.b_score, answers,
                t.text AS true_answer, ta.text AS a_answer, tb.text AS b_answer
            FROM asked a JOIN answered d ON d.question = a.number JOIN questions q ON q.number = a.number
                LEFT JOIN texts t ON t.number = d.best LEFT JOIN texts ta ON ta.number = d.a_form
                LEFT JOIN texts tb ON tb.number = d.b_form
            ORDER BY times DESC, q.text""",
            chosen,
        )


def calibration_error(bins: Sequence[Mapping[str, Any]]) -> float | None:
    """ECE: mean distance of score and confidence over the bins, weighted by rows; None: no row says how sure it was.

    Source: Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (2015).
    """
    rows = sum(each["rows"] for each in bins)
    if not rows:
        return None
    return float(sum(each["rows"] * abs(each["score"] - each["confidence"]) for each in bins) / rows)
