"""Errors say which names are known and which ids are meant, and stay whole on the way to another process."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from kovqa_core.errors import ERROR_CLASSES, KovqaError, list_ids, list_lines, unknown_name_error
from kovqa_core.messages import Message, message

RECIPES = ["kobeit3", "kobeit3-base", "tiny", "vilt"]


def unknown_recipe(name: str, known_names: list[str]) -> str:
    problem = message("test.unknown-recipe", "unknown recipe '{name}'", name=name)
    return unknown_name_error(problem, name, known_names).message


@pytest.mark.parametrize(
    ("name", "known_names", "text"),
    [
        ("tyni", RECIPES, "unknown recipe 'tyni'; did you mean tiny?"),
        ("kobiet3", RECIPES, "unknown recipe 'kobiet3'; did you mean kobeit3 or kobeit3-base?"),
        ("x", RECIPES, "unknown recipe 'x'; known: kobeit3, kobeit3-base, tiny, vilt"),
        ("x", [], "unknown recipe 'x'; known: none"),
    ],
)
def test_an_unknown_name_lists_the_nearest_known_ones(name: str, known_names: list[str], text: str) -> None:
    assert unknown_recipe(name, known_names) == text


def test_the_first_ten_ids_are_named() -> None:
    assert list_ids(["7"]) == "1 id: 7"
    assert list_ids(["7", "8"]) == "2 ids: 7, 8"
    assert list_ids([*map(str, range(12))]) == "12 ids: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …"
    assert list_lines(["3"]) == "1 line: 3"
    assert list_lines(["3", "5"]) == "2 lines: 3, 5"


@pytest.mark.parametrize("error_class", [KovqaError, *ERROR_CLASSES.values()])
def test_an_error_is_whole_in_another_process(error_class: type[KovqaError]) -> None:
    error = error_class(
        message("test.no-image", "{file}: no image {number}", file=Path("표.csv"), number=3),
        message("test.no-image.hint", "name the folder with {option}", option="--images"),
    )
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is error_class
    assert (copy.message, copy.hint) == ("표.csv: no image 3", "name the folder with --images")
    assert str(copy) == str(error)
    assert copy.exit_code == error.exit_code
    for text, key, fields in (
        (copy.message, "test.no-image", {"file": Path("표.csv"), "number": 3}),
        (copy.hint, "test.no-image.hint", {"option": "--images"}),
    ):
        assert isinstance(text, Message)
        assert (text.key, text.fields) == (key, fields)
