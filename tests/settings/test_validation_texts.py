"""What is wrong with a setting has the key of a message, whether pydantic says it or a check of ours."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.messages.languages import translate
from kovqa_core.settings.strict_yaml import SettingsDocument, StrictSettings, build_settings
from pydantic import Field


class Example(StrictSettings):
    steps: int = 1
    rate: float = Field(0.5, gt=0, lt=1)
    rows: int = Field(2, ge=2, le=9)
    flag: bool = True
    name: str = ""
    kind: Literal["a", "b", "c"] = "a"
    only: Literal["x"] = "x"
    mode: Literal["auto"] | bool = "auto"
    words: list[str] = Field(default_factory=list)
    pair: tuple[int, int] = (1, 2)
    table: dict[str, int] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", "x"), ("steps", 1.5), ("steps", []), ("rate", 0), ("rate", 1), ("rate", "x"), ("rate", []),
        ("rate", float("inf")), ("rows", 1), ("rows", 10), ("flag", "x"), ("flag", []), ("name", 3), ("kind", "z"),
        ("only", "z"), ("mode", "z"), ("words", "x"), ("pair", "x"), ("table", 3),
    ],
)  # fmt: skip
def test_pydantic_speaks_by_key(key: str, value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        build_settings(Example, SettingsDocument({key: value}, {(key,): "a.yaml:1:1"}))
    korean = translate(caught.value.message, "ko")
    told = korean.partition(f"{key}: ")[2].rpartition("(")[0]
    assert re.search(r"[가-힣]", told)
    assert "Input" not in told
    assert "Input should be" in caught.value.message  # pydantic's own words
