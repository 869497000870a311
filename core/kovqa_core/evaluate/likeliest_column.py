"""The column `likeliest` of predictions: [[answer, probability], …], best first; in a table's cell as JSON text."""

from __future__ import annotations

from kovqa_core.bounded_json import parse_json
from kovqa_core.data.example import Answer

LIKELIEST = "likeliest"
Likeliest = tuple[tuple[str, float], ...]


def likeliest_fields(answer: Answer) -> dict[str, list[list[str | float]]]:
    """The column of an answer; none where its likeliest were not asked for, or it has none."""
    if not answer.likeliest:
        return {}
    return {LIKELIEST: [[text, round(score, 6)] for text, score in answer.likeliest]}


def parse_likeliest(value: object) -> Likeliest:
    """What a cell says; nothing where it is empty or something else: a column of that name may be anybody's."""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            return ()
    if not isinstance(value, list):
        return ()
    pairs = [_parse_pair(each) for each in value]
    return tuple(pair for pair in pairs if pair is not None) if None not in pairs else ()


def _parse_pair(value: object) -> tuple[str, float] | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    text, score = value
    if not isinstance(text, str) or isinstance(score, bool) or not isinstance(score, int | float):
        return None
    return (text, float(score)) if 0 <= score <= 1 else None
