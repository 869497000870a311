"""Columns inside of columns: `--column question=qa.question` names a field of an object, or of each object of a list.

    {"image": "a.jpg", "qa": [{"question": "무엇?", "answer": "별"}, {"question": "색?", "answer": "빨강"}]}

Where the question is one of a list, each of them is a row, with what stands beside it; the same of an object of
lists, as Hugging Face writes lists of objects: {"question": ["무엇?", "색?"], "answer": ["별", "빨강"]}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kovqa_core.data.json_values import JsonRecord, JsonValue

MISSING: Final = object()
_MAX_NAMED = 30  # fields that an error lists


@dataclass(frozen=True)
class NestedColumns:
    """Names with dots, of columns that a table may have inside of others.

    Attributes:
        names: all of them.
        questions: those of the question, of which a row may have several.
        ids: names of the column of the id.
    """

    names: Sequence[str] = ()
    questions: Sequence[str] = ()
    ids: Sequence[str] = ()


def lift_nested_columns(
    rows: Iterator[tuple[int, JsonValue]], nested: NestedColumns
) -> Iterator[tuple[int, JsonValue]]:
    """Rows with the fields that dotted names mean as columns of these names; one for each question of a list."""
    for line, row in rows:
        if isinstance(row, dict):
            yield from ((line, each) for each in _lift(row, nested))
        else:
            yield line, row


def _lift(row: JsonRecord, nested: NestedColumns) -> Iterator[JsonRecord]:
    found = {name: value for name in nested.names if (value := field_at(row, name)) is not MISSING}
    question = next((name for name in nested.questions if isinstance(found.get(name), list)), None)
    if question is None:
        yield {**row, **found}
        return
    root = question.partition(".")[0]
    count = len(found[question])
    beside = {
        name: value for name, value in found.items()
        if name.partition(".")[0] == root and isinstance(value, list) and len(value) == count
    }  # fmt: skip
    rest = {name: value for name, value in row.items() if name != root}
    for number in range(count):
        each = {**rest, **found, **{name: value[number] for name, value in beside.items()}}
        id = next((name for name in nested.ids if each.get(name) not in (None, "")), None)
        if id is not None and id not in beside and count > 1:
            each[id] = f"{each[id]}/{number + 1}"
        yield each


def field_at(row: Mapping[str, Any], name: str) -> Any:
    """What a name with dots means in a row: a field, or the list of it in the objects of a list.

    A column of this very name comes first. What lies in a null is null; `MISSING`: the row has nothing of the name.
    """
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, list):
            objects = [each for each in value if isinstance(each, dict)]
            if objects and not any(part in each for each in objects):
                return MISSING
            value = [each.get(part) if isinstance(each, dict) else None for each in value]
        elif isinstance(value, dict):
            if part not in value:
                return MISSING
            value = value[part]
        elif value is not None:
            return MISSING
    return value


def nested_names(row: JsonRecord) -> list[str]:
    """The columns of a row, and the names of fields inside of them, for an error."""
    names: list[str] = []
    for name, value in row.items():
        names.append(name)
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, dict):
            names += [f"{name}.{field}" for field in first]
    return names[:_MAX_NAMED]
