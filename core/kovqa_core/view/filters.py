"""What a page's address asks for, as a condition of SQL with its values apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kovqa_core.errors import SettingsError
from kovqa_core.files import to_nfc
from kovqa_core.messages import Message, message

ROWS_OF_A_PAGE = 48
MAX_PAGE = 1_000_000
MAX_TEXT_LETTERS = 2000  # of a longer text the beginning: browsers and servers bound addresses
_VERDICTS = {"right": "{model}_right", "wrong": "NOT {model}_right"}
# From the same column: which of two models is right, and whether they say the same.
_COMPARISONS = {
    "same": "a_form = b_form",
    "different": "a_form <> b_form",
    "only-a": "a_right AND NOT b_right",
    "only-b": "b_right AND NOT a_right",
    "neither": "NOT a_right AND NOT b_right",
}
# Ties in the order of the index, so that pages neither repeat nor skip rows.
_ORDERS = {
    "": "split, line",
    "sure": "a_confidence DESC NULLS LAST, split, line",
    "unsure": "a_confidence ASC NULLS LAST, split, line",
    "low": "a_score ASC NULLS LAST, split, line",
}
FILTER_NAMES = (
    "q",
    "split",
    "type",
    "answer",
    "given",
    "given-b",
    "a",
    "b",
    "pair",
    "low",
    "high",
    "sort",
    "question",
)


class Condition(NamedTuple):
    """A condition of SQL, and the values of its question marks."""

    sql: str
    values: Sequence[object]


@dataclass(frozen=True)
class RowFilter:
    """Which rows are shown, and in which order; a field that is "" or None leaves all.

    Attributes:
        search: part of the question, of the true answer or of a model's, or a whole id.
        split: a name.
        question_type: whole.
        answer: best true answer, in the form in which it is compared.
        given, given_b: A's answer and B's, in that form.
        question: whole.
        a, b: "right" or "wrong".
        pair: "same", "different", "only-a", "only-b" or "neither".
        low, high: of A's confidence, 0…1.
        sort: "sure", "unsure" or "low" (A's score, least first); "": as in the index.
    """

    search: str = ""
    split: str = ""
    question_type: str | None = None
    answer: str | None = None
    given: str | None = None
    given_b: str | None = None
    question: str | None = None
    a: str = ""
    b: str = ""
    pair: str = ""
    low: float | None = None
    high: float | None = None
    sort: str = ""

    @property
    def order(self) -> str:
        """The columns to sort by."""
        return _ORDERS[self.sort]


def parse_filter(query: Mapping[str, str], splits: Sequence[str]) -> RowFilter:
    """The filter of an address.

    Args:
        query: its parameters; those that are none of `FILTER_NAMES` are left out.
        splits: names that there are.

    Raises:
        SettingsError: a value that no page writes.
    """
    given = {name: to_nfc(query[name])[:MAX_TEXT_LETTERS] for name in FILTER_NAMES if query.get(name)}
    # An empty type or answer is one, too: rows without any.
    empty = {name: "" for name in ("type", "answer", "given", "given-b") if name in query}
    whole = {**empty, **given}
    return RowFilter(
        given.get("q", ""),
        _one_of("split", given, splits),
        whole.get("type"), whole.get("answer"), whole.get("given"), whole.get("given-b"), given.get("question"),
        _one_of("a", given, _VERDICTS),
        _one_of("b", given, _VERDICTS),
        _one_of("pair", given, _COMPARISONS),
        _fraction("low", given),
        _fraction("high", given),
        _one_of("sort", given, _ORDERS),
    )  # fmt: skip


def parse_page(query: Mapping[str, str]) -> int:
    """The number of the page, from 0; raises as `parse_filter`."""
    text = query.get("page", "0")
    if not text.isascii() or not text.isdecimal() or int(text[:9]) > MAX_PAGE:
        raise _bad_value("page", text)
    return int(text)


def filter_condition(chosen: RowFilter, splits: Sequence[str]) -> Condition:
    """The condition of a filter on the table `rows`."""
    parts: list[str] = []
    values: list[object] = []

    def add(sql: str, *more: object) -> None:
        parts.append(f"({sql})")
        values.extend(more)

    if chosen.split:
        add("split = ?", list(splits).index(chosen.split))
    for column, table, text in (
        ("type", "types", chosen.question_type),
        ("best", "texts", chosen.answer),
        ("a_form", "texts", chosen.given),
        ("b_form", "texts", chosen.given_b),
        ("question", "questions", chosen.question),
    ):
        if text is not None:
            same = "starts_with(text, ?)" if len(text) == MAX_TEXT_LETTERS else "text = ?"
            # Of no row is a best answer "": such a filter asks for those without any.
            is_missing = text == "" and table == "texts"
            if is_missing:
                add(f"{column} IS NULL OR {column} IN (SELECT number FROM {table} WHERE text = ?)", text)
            else:
                add(f"{column} IN (SELECT number FROM {table} WHERE {same})", text)
    for model, verdict in (("a", chosen.a), ("b", chosen.b)):
        if verdict:
            add(_VERDICTS[verdict].format(model=model))
    if chosen.pair:
        add(_COMPARISONS[chosen.pair])
    if chosen.low is not None:
        add("a_confidence >= ?", chosen.low)
    if chosen.high is not None:
        add("a_confidence <= ?", chosen.high)
    if chosen.search:
        text = chosen.search.lower()
        add(
            "question IN (SELECT number FROM questions WHERE contains(folded, ?)) "
            "OR best IN (SELECT number FROM texts WHERE contains(folded, ?)) "
            "OR a_form IN (SELECT number FROM texts WHERE contains(folded, ?)) "
            "OR b_form IN (SELECT number FROM texts WHERE contains(folded, ?)) OR id = ?",
            text, text, text, text, chosen.search,
        )  # fmt: skip
    return Condition(" AND ".join(parts) or "true", values)


def _one_of(name: str, given: Mapping[str, str], known: Mapping[str, str] | Sequence[str]) -> str:
    value = given.get(name, "")
    if value and value not in known:
        raise _bad_value(name, value)
    return value


def _fraction(name: str, given: Mapping[str, str]) -> float | None:
    if name not in given:
        return None
    try:
        value = float(given[name])
    except ValueError:
        raise _bad_value(name, given[name]) from None
    if not 0 <= value <= 1:
        raise _bad_value(name, given[name])
    return value


def _bad_value(name: str, value: str) -> SettingsError:
    problem: Message = message("view.bad-filter", "{name} cannot be '{value}'", name=name, value=value)
    return SettingsError(problem, message("view.bad-filter.hint", "open the page without it"))
