"""An index line and a prediction line: JSON that every reader takes."""

from __future__ import annotations

import json

import pytest
from kovqa_core.data.example import Example, json_line, parse_example
from kovqa_core.errors import DataError


def test_a_carried_nan_becomes_null() -> None:
    carried = {
        "a": float("nan"),
        "b": [1.5, float("inf")],
        "c": {"d": float("-inf")},
        "e": "NaN",
        "f": "\ud83d",
    }
    assert json.loads(json_line(carried), parse_constant=pytest.fail) == {
        "a": None, "b": [1.5, None], "c": {"d": None}, "e": "NaN", "f": "\ud83d",
    }  # fmt: skip
    text = Example("1", "a.jpg", "뭐?", columns={"a": float("nan")}).line()
    assert parse_example(text, "val.jsonl:1").columns == {"a": None}


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-Infinity"])
def test_an_index_line_with_a_score_that_is_no_number_is_named(score: str) -> None:
    line = f'{{"id": "1", "image": "a.jpg", "question": "q", "answers": {{"a": {score}}}, "kind": ""}}'
    for each in (line, line.encode()):
        with pytest.raises(DataError, match=rf"val\.jsonl:3: not an index line \({score}\)"):
            parse_example(each, "val.jsonl:3")


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "1", "image": "a", "question": "q", "answers": ["x"]}',
        b"\xff\xfe",
        "[" * 200_000,
        "",
        "null",
        "[1]",
        '{"id": "1"}',
        '{"x": 1}',
    ],
)
def test_a_broken_index_line_is_named(line: str | bytes) -> None:
    with pytest.raises(DataError, match=r"val\.jsonl:3: not an index line"):
        parse_example(line, "val.jsonl:3")
